"""The Xen lab: dom0 with Open vSwitch and fsctl, NodeA - br-a - vr1 - br-b - vr2 - ... - NodeB as PV domUs."""

from __future__ import annotations

from types import TracebackType

from topologies.labs.fsctl_setup import URL, Fsctl, Tokens, configuration, lab_bypass
from topologies.labs.plan import MGMT_BRIDGE, MGMT_HOST, Guest, Nic, Plan
from topologies.labs.remote import LabError
from topologies.labs.xen.image import Image
from topologies.labs.xen.machine import Machine

ROUTER_MIB, HOST_MIB = 224, 96
READY_S = 400.0
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

    def __init__(self, machine: Machine, plan: Plan, tokens: Tokens) -> None:
        self.machine, self.plan, self.tokens = machine, plan, tokens
        self.station = machine.station
        self.fsctl = Fsctl(self.station, plan, tokens.admin)

    @classmethod
    def boot(cls, image: Image, scheduler: str, plan: Plan) -> XenLab:
        """Xen and dom0, nothing else yet."""
        machine = Machine(image, scheduler)
        try:
            machine.wait_for_console("LAB-DOM0-READY")
        except BaseException:
            machine.close()
            raise
        return cls(machine, plan, Tokens.for_plan(plan))

    def set_up(self) -> None:
        """Everything of docs/xen.md, from a bare dom0 to routers that have delegated."""
        self.add_bridges()
        self.start_controller()
        for guest in self.plan.guests:
            if guest.is_router:
                self.provision(guest)
            self.create(guest)
        for guest in self.plan.guests:
            self.wait_for(guest)

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

    def start_controller(self) -> None:
        """`ryu-manager fsctl.app` in dom0."""
        config = configuration(self.plan, self.tokens, store="/var/lib/fsctl/fsctl.db", ovsdb="unix:/var/run/openvswitch/db.sock")
        self.station.put(f"{FSCTL}/fsctl.yaml", config, mode=0o600)
        self.station.run(
            f"mkdir -p /var/lib/fsctl; FSCTL_CONFIG={FSCTL}/fsctl.yaml setsid ryu-manager fsctl.app"
            " > /var/log/fsctl.log 2>&1 < /dev/null & echo $! > /run/fsctl.pid"
        )
        try:
            self.fsctl.wait_until_ready(READY_S)
        except LabError as e:
            raise LabError(f"{e}\nfsctl said:\n{self.station.try_run('tail -n 30 /var/log/fsctl.log').out}") from e

    def provision(self, guest: Guest) -> None:
        """What vif-fsctl shall write to the guest's vm-data/fsctl/ whenever it starts."""
        values = {"url": URL, "router": guest.name, "token": self.tokens.routers[guest.name]}
        for key, value in values.items():
            self.station.put(f"{FSCTL}/xen/{guest.name}/{key}", value + "\n", mode=0o600)

    def bypass(self, enabled: bool) -> None:
        """Let the routers' agents delegate, or not."""
        lab_bypass(self.station, self.plan, self.fsctl, enabled)

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

    def destroy(self, guest: Guest) -> None:
        """`xl destroy`: gone without a word, as after a crash."""
        self.station.run(f"xl destroy {guest.name}")

    def on(self, guest: Guest, command: str, timeout_s: float = 60) -> str:
        """A command's output in a guest."""
        return self.station.run(command, timeout_s, guest=guest.mgmt)

    def domain_id(self, guest: Guest) -> int:
        return int(self.station.run(f"xl domid {guest.name}"))
