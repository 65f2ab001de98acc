"""The VM lab: NodeA - br-a - vr1 - br-b - ... - NodeB as QEMU virtual machines, fsctl beside the bridges."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from topologies.labs.fsctl_setup import URL, Fsctl, Tokens, configuration, lab_bypass
from topologies.labs.plan import Guest, Plan
from topologies.labs.remote import LabError
from topologies.labs.vm.host import Host
from topologies.labs.vm.qemu import Images, Machine, accelerator

READY_S = 120.0
RESUMED_S = 60.0
SAVED_S = 60.0
STORE = "fsctl.db"


@dataclass(frozen=True, slots=True)
class Saved:
    """A lab's saved state: a folder with the guests', the controller's store and what both were set up with."""

    folder: Path
    tokens: Tokens
    booted_s: float
    """How long the guests took to boot."""

    @classmethod
    def load(cls, folder: Path) -> Saved:
        value = json.loads((folder / "lab.json").read_text())
        return cls(folder, Tokens(**value["tokens"]), value["booted_s"])

    def write(self) -> None:
        """What `load` reads."""
        (self.folder / "lab.json").write_text(json.dumps({"tokens": asdict(self.tokens), "booted_s": self.booted_s}))

    @property
    def store(self) -> Path:
        return self.folder / STORE

    def state(self, guest: Guest) -> Path:
        return self.folder / f"{guest.name}.state"


class VmLab:
    """A running lab, booted or resumed. Use as a context manager: nothing of it is left afterwards."""

    def __init__(self, plan: Plan, images: Images, saved: Saved | None = None) -> None:
        self.plan, self._images, self._saved = plan, images, saved
        self.tokens = Tokens.for_plan(plan) if saved is None else saved.tokens
        self._host = Host()
        start = time.monotonic()
        try:
            self._start()
            if saved is None:
                self._wait_until_booted(start + READY_S)
            else:
                self._resume(start + RESUMED_S)
        except BaseException:
            self._host.close()
            raise
        self.up_s = time.monotonic() - start
        self.booted_s = self.up_s if saved is None else saved.booted_s

    def _start(self) -> None:
        """Bridges, guests and controller; saved guests load meanwhile, but do not run."""
        self._host.open(self.plan)
        self.station = self._host.station
        self._machines = [self._create(guest) for guest in self.plan.guests]
        self._start_controller()

    def _wait_until_booted(self, end: float) -> None:
        for machine in self._machines:
            machine.wait_until_booted(end)

    def _resume(self, end: float) -> None:
        """Let saved guests run on, until their agents have found the controller and all is bypassed again."""
        for machine in self._machines:
            machine.wait_until_loaded(end)
        for machine in self._machines:
            machine.go_on()
        for machine in self._machines:
            machine.wait_until_answering(self.station, end)
        for router in self.plan.routers:
            self._wait_for_agent(router, end)
        self.fsctl.wait_for_bypass(True, end - time.monotonic())

    def _wait_for_agent(self, router: Guest, end: float) -> None:
        """Until a resumed agent has sent its whole FIB again; what the store still holds of it does not count."""
        while not (session := self.fsctl.ask("GET", f"/v1/routers/{router.name}")["session"]) or not session["synced"]:
            if time.monotonic() > end:
                raise LabError(f"the agent of {router.name} has not come back: {session}")
            time.sleep(0.2)

    def __enter__(self) -> VmLab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End everything and take it away."""
        self._host.close()

    @property
    def accelerator(self) -> str:
        """`kvm` or `tcg`."""
        return accelerator(self._images.kernel.image)[1]

    @property
    def guest_kernel(self) -> str:
        """Its release."""
        return self._images.kernel.release

    @property
    def resumed(self) -> bool:
        """Whether its guests were resumed, not booted."""
        return self._saved is not None

    def _create(self, guest: Guest) -> Machine:
        state = None if self._saved is None else self._saved.state(guest).resolve(strict=True)
        return Machine(self._host, guest, self._images, self._agent_settings(guest), state)

    def _agent_settings(self, guest: Guest) -> str:
        """Where fsctl-agent finds its controller: kernel arguments that the guest's init exports."""
        if not guest.is_router:
            return ""
        settings = {"FSCTL_URL": URL, "FSCTL_ROUTER": guest.name, "FSCTL_TOKEN": self.tokens.routers[guest.name]}
        return " ".join(f"lab.env={key}:{value}" for key, value in settings.items())

    def _start_controller(self) -> None:
        config, store = (self._host.folder / name for name in ("fsctl.yaml", STORE))
        config.write_text(configuration(self.plan, self.tokens, store=str(store), ovsdb=self._host.db))
        if self._saved is not None:
            shutil.copyfile(self._saved.store, store)
        manager = Path(sys.executable).with_name("ryu-manager")
        self._host.spawn("controller", ["env", f"FSCTL_CONFIG={config}", str(manager), "fsctl.app"])
        self.fsctl = Fsctl(self.station, self.plan, self.tokens.admin)
        self.fsctl.wait_until_ready()

    def save(self, folder: Path) -> None:
        """Write the lab's state to a new folder; its guests stand still meanwhile."""
        folder.mkdir(mode=0o700)
        saved = Saved(folder, self.tokens, self.booted_s)
        end = time.monotonic() + SAVED_S
        try:
            for machine in self._machines:
                machine.stop()
            copy_database(self._host.folder / STORE, saved.store)
            for machine in self._machines:
                machine.save(saved.state(machine.guest))
            for machine in self._machines:
                machine.wait_until_saved(saved.state(machine.guest), end)
        finally:
            for machine in self._machines:
                machine.go_on()
        saved.write()

    def on(self, guest: Guest, command: str, timeout_s: float = 60) -> str:
        """A command's output in a guest."""
        return self.station.run(command, timeout_s, guest=guest.mgmt)

    def bypass(self, enabled: bool) -> None:
        """Let the routers' agents delegate, or not."""
        lab_bypass(self.station, self.plan, self.fsctl, enabled)

    def shell(self) -> int:
        """An interactive shell in the namespace; the guests answer on port 2323 of their management addresses."""
        return self._host.shell({"FSCTL_URL": URL, "FSCTL_TOKEN": self.tokens.admin})


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of an SQLite file that another process has open."""
    read_only = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(read_only, uri=True)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
