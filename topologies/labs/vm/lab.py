"""The VM lab: NodeA - br-a - vr1 - br-b - ... - NodeB as QEMU virtual machines, fsctl beside the bridges."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType

from topologies.labs import debian
from topologies.labs.fsctl_setup import URL, Fsctl, Tokens, configuration, lab_bypass
from topologies.labs.initramfs import initramfs
from topologies.labs.plan import Guest, Plan
from topologies.labs.vm.host import Host
from topologies.labs.vm.qemu import Machine, accelerator

READY_S = 120.0


class VmLab:
    """A running lab. Use as a context manager: nothing of it is left afterwards."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tokens = Tokens.for_plan(plan)
        self.kernel = debian.Kernel(debian.GUEST_KERNEL)
        self._images = {is_router: initramfs(self.kernel, is_router) for is_router in (False, True)}
        self._host = Host()
        self.up_s = 0.0

    def __enter__(self) -> VmLab:
        start = time.monotonic()
        try:
            self._host.open(self.plan)
            self.station = self._host.station
            machines = [self._create(guest) for guest in self.plan.guests]
            self._start_controller()
            for machine in machines:
                machine.wait_until_ready(start + READY_S)
        except BaseException:
            self._host.close()
            raise
        self.up_s = time.monotonic() - start
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._host.close()

    @property
    def accelerator(self) -> str:
        """`kvm` or `tcg`."""
        return accelerator(self.kernel.image)[1]

    def _create(self, guest: Guest) -> Machine:
        return Machine(self._host, guest, self.kernel, self._images[guest.is_router], self._agent_settings(guest))

    def _agent_settings(self, guest: Guest) -> str:
        """Where fsctl-agent finds its controller: kernel arguments that the guest's init exports."""
        if not guest.is_router:
            return ""
        settings = {"FSCTL_URL": URL, "FSCTL_ROUTER": guest.name, "FSCTL_TOKEN": self.tokens.routers[guest.name]}
        return " ".join(f"lab.env={key}:{value}" for key, value in settings.items())

    def _start_controller(self) -> None:
        folder = self._host.folder
        config = folder / "fsctl.yaml"
        config.write_text(configuration(self.plan, self.tokens, store=str(folder / "fsctl.db"), ovsdb=self._host.db))
        manager = Path(sys.executable).with_name("ryu-manager")
        self._host.spawn("controller", ["env", f"FSCTL_CONFIG={config}", str(manager), "fsctl.app"])
        self.fsctl = Fsctl(self.station, self.plan, self.tokens.admin)
        self.fsctl.wait_until_ready()

    def on(self, guest: Guest, command: str, timeout_s: float = 60) -> str:
        """A command's output in a guest."""
        return self.station.run(command, timeout_s, guest=guest.mgmt)

    def bypass(self, enabled: bool) -> None:
        """Let the routers' agents delegate, or not."""
        lab_bypass(self.station, self.plan, self.fsctl, enabled)

    def shell(self) -> int:
        """An interactive shell in the namespace; the guests answer on port 2323 of their management addresses."""
        return self._host.shell({"FSCTL_URL": URL, "FSCTL_TOKEN": self.tokens.admin})
