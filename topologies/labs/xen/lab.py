"""The Xen lab: dom0 with Open vSwitch and fsctl, NodeA - br-a - vr1 - br-b - vr2 - ... - NodeB as PV domUs."""

from __future__ import annotations

from types import TracebackType

from topologies.labs.plan import MGMT_BRIDGE, MGMT_HOST, Guest, Nic, Plan
from topologies.labs.xen.image import Image
from topologies.labs.xen.machine import Machine

ROUTER_MIB, HOST_MIB = 224, 96
READY_S = 240.0
FSCTL = "/etc/fsctl"


def vif(nic: Nic) -> str:
    """xl-network-configuration(5)."""
    return f"mac={nic.mac},bridge={nic.bridge},script=vif-fsctl"


def domain_config(guest: Guest) -> str:
    """xl.cfg(5) of a guest. It comes back after a reboot, and stays away after a crash."""
    vifs = ",\n        ".join(f"'{vif(nic)}'" for nic in guest.nics)
    return f"""\
name = "{guest.name}"
type = "pv"
kernel = "/opt/lab/vmlinux"
ramdisk = "/opt/lab/{"router" if guest.is_router else "host"}.cpio.gz"
memory = {ROUTER_MIB if guest.is_router else HOST_MIB}
vcpus = 1
vif = [ {vifs} ]
extra = "console=hvc0 quiet mitigations=off nopti {guest.command_line()}"
on_reboot = "restart"
on_crash = "destroy"
"""


class XenLab:
    """A booted Xen host. Use as a context manager: nothing runs on after it."""

    def __init__(self, machine: Machine, plan: Plan) -> None:
        self.machine, self.plan = machine, plan
        self.station = machine.station

    @classmethod
    def boot(cls, image: Image, scheduler: str, plan: Plan) -> XenLab:
        """Xen and dom0, nothing else yet."""
        machine = Machine(image, scheduler)
        try:
            machine.wait_for_console("LAB-DOM0-READY")
        except BaseException:
            machine.close()
            raise
        return cls(machine, plan)

    def __enter__(self) -> XenLab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.machine.close()

    def add_bridges(self) -> None:
        """The data bridges, and the management bridge with dom0's own address on it."""
        adds = " ".join(f"-- --may-exist add-br {name}" for name in (*self.plan.bridges, MGMT_BRIDGE))
        self.station.run(f"ovs-vsctl {adds}")
        for name in (*self.plan.bridges, MGMT_BRIDGE):
            self.station.run(f"ip link set {name} up")
        self.station.run(f"ip addr replace {MGMT_HOST}/24 dev {MGMT_BRIDGE}")

    def create(self, guest: Guest) -> None:
        """`xl create`; returns before the guest has booted."""
        self.station.put(f"/etc/xen/{guest.name}.cfg", domain_config(guest))
        self.station.run(f"xl create /etc/xen/{guest.name}.cfg", timeout_s=READY_S)

    def wait_for(self, guest: Guest) -> None:
        """Until the guest serves commands."""
        self.station.until(
            f"for i in $(seq 60); do timeout 1 bash -c 'echo exit > /dev/tcp/{guest.mgmt}/2323' 2>/dev/null"
            " && echo reached && break; sleep 0.5; done",
            "reached", READY_S,
        )  # fmt: skip

    def on(self, guest: Guest, command: str, timeout_s: float = 60) -> str:
        """A command's output in a guest."""
        return self.station.run(command, timeout_s, guest=guest.mgmt)

    def domain_id(self, guest: Guest) -> int:
        return int(self.station.run(f"xl domid {guest.name}"))
