"""One QEMU virtual machine on TAPs, with KVM where it really runs a guest, else by emulation.

Its state is saved and loaded as QEMU migrates a guest: into a file, and later from it into another QEMU.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path
from typing import Any

from topologies.labs import debian
from topologies.labs.initramfs import initramfs
from topologies.labs.plan import Guest
from topologies.labs.qmp import Qmp
from topologies.labs.remote import LabError, Station
from topologies.labs.vm.host import Host

KVM = ("-accel", "kvm", "-cpu", "host")
EMULATION = ("-accel", "tcg", "-cpu", "max,-la57")
PROBE_S = 4.0
MEMORY_MIB = 192
ANSWER_S = 2.0
UNLIMITED = 1 << 40  # bytes/s; QEMU's default would be 128 MiB/s
# TAPs and the userspace datapath hand frames on as they are: without these, checksums stay unfinished.
_OFFLOADS = (
    "csum", "gso", "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo",
    "host_tso4", "host_tso6", "host_ecn", "host_ufo",
)  # fmt: skip


@once
def accelerator(kernel: Path) -> tuple[str, ...]:
    """KVM if a guest kernel gets to its console with it (a /dev/kvm alone promises nothing), else emulation."""
    if not Path("/dev/kvm").exists():
        return EMULATION
    with tempfile.NamedTemporaryFile() as console:
        probe = subprocess.Popen(
            ["qemu-system-x86_64", *KVM, "-m", "128", "-display", "none", "-nodefaults", "-no-reboot",
             "-serial", f"file:{console.name}", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + PROBE_S
        alive = False
        while not alive and probe.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
            alive = b"Linux version" in Path(console.name).read_bytes()
        probe.kill()
        probe.wait()
    return KVM if alive else EMULATION


@dataclass(frozen=True, slots=True)
class Images:
    """What guests boot from."""

    kernel: debian.Kernel
    host: Path
    router: Path

    @classmethod
    def built(cls) -> Images:
        """All of it in the cache."""
        kernel = debian.Kernel(debian.GUEST_KERNEL)
        return cls(kernel, host=initramfs(kernel, router=False), router=initramfs(kernel, router=True))

    def file_system(self, guest: Guest) -> Path:
        return self.router if guest.is_router else self.host


def _cards(guest: Guest) -> list[str]:
    """QEMU's options for the guest's cards on their TAPs."""
    offloads = ",".join(f"{name}=off" for name in _OFFLOADS)
    options: list[str] = []
    for number, nic in enumerate(guest.nics):
        options += ["-netdev", f"tap,id=n{number},ifname={tap(guest, number)},script=no,downscript=no"]
        options += ["-device", f"virtio-net-pci,netdev=n{number},mac={nic.mac},romfile=,{offloads}"]
    return options


def tap(guest: Guest, number: int) -> str:
    """The name of the TAP behind the guest's card of this number."""
    return f"{guest.name}.{number}"


class Machine:
    """A guest's QEMU: it boots, or with `state` (what `save` wrote) waits where that was saved until `go_on`."""

    def __init__(self, host: Host, guest: Guest, images: Images, extra: str = "", state: Path | None = None) -> None:
        self.guest = guest
        self._console, self._socket = (host.folder / f"{guest.name}.{end}" for end in ("console", "qmp"))
        self._log = host.folder / f"{guest.name}.log"
        self._qmp: Qmp | None = None
        for number, nic in enumerate(guest.nics):
            host.plug(tap(guest, number), nic)
        kernel = images.kernel.image
        command_line = f"console=ttyS0 quiet mitigations=off nopti {guest.command_line()} {extra}"
        self._process = host.spawn(guest.name, [
            "qemu-system-x86_64", *accelerator(kernel), "-smp", "1", "-m", str(MEMORY_MIB), "-display", "none",
            "-vga", "none", "-nodefaults", "-no-reboot", "-serial", f"file:{self._console}", *_cards(guest),
            "-qmp", f"unix:{self._socket},server=on,wait=off",
            "-kernel", str(kernel), "-initrd", str(images.file_system(guest)), "-append", command_line,
            *([] if state is None else ["-S", "-incoming", f"exec:cat {shlex.quote(str(state))}"]),
        ])  # fmt: skip

    def _words(self) -> str:
        """The last of what the guest and QEMU said."""
        files = [file for file in (self._console, self._log) if file.exists()]
        return "\n".join(file.read_text("utf-8", "replace")[-500:] for file in files)

    def _pause(self, end: float, missing: str) -> None:
        """Before asking again; LabError at `end` (monotonic seconds), when the guest reports trouble, or is gone."""
        words = self._words()
        if "LAB-ERROR" in words or self._process.poll() is not None:
            raise LabError(f"{self.guest.name} failed: {words}")
        if time.monotonic() > end:
            raise LabError(f"{self.guest.name} {missing}: {words}")
        time.sleep(0.1)

    def wait_until_booted(self, end: float) -> None:
        """Until its init serves commands."""
        while "LAB-GUEST-READY" not in self._words():
            self._pause(end, "is not ready")

    def wait_until_answering(self, station: Station, end: float) -> None:
        """Until it carries out commands."""
        while station.try_run("true", ANSWER_S, guest=self.guest.mgmt).rc != 0:
            self._pause(end, "does not answer")

    def _ask(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        try:
            if self._qmp is None:
                self._qmp = Qmp(self._socket)
            return self._qmp.ask(command, arguments)
        except (LabError, OSError) as e:
            raise LabError(f"{self.guest.name}: {e}: {self._words()}") from e

    def wait_until_loaded(self, end: float) -> None:
        """Until QEMU has read the saved state; the guest does not run yet."""
        while not self._socket.exists():
            self._pause(end, "has no QEMU")
        while self._ask("query-status")["status"] == "inmigrate":
            self._pause(end, "is not loaded")

    def stop(self) -> None:
        """Let the guest stand still."""
        self._ask("stop")

    def go_on(self) -> None:
        """Let the guest run on."""
        self._ask("cont")

    def save(self, target: Path) -> None:
        """Begin to write the state of the stopped guest to `target`, which appears when it is complete."""
        part = shlex.quote(f"{target}.part")
        self._ask("migrate-set-parameters", {"max-bandwidth": UNLIMITED})
        self._ask("migrate", {"uri": f"exec:cat > {part} && mv {part} {shlex.quote(str(target))}"})

    def wait_until_saved(self, target: Path, end: float) -> None:
        """Until `save` is done."""
        while (status := self._ask("query-migrate").get("status")) != "completed" or not target.exists():
            if status in {"failed", "cancelled"}:
                raise LabError(f"{self.guest.name} cannot be saved: {self._words()}")
            self._pause(end, "is not saved")
