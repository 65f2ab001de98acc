"""One QEMU virtual machine on TAPs, with KVM where it really runs a guest, else by emulation."""

from __future__ import annotations

import subprocess
import tempfile
import time
from functools import cache as once
from pathlib import Path

from topologies.labs import debian
from topologies.labs.plan import Guest
from topologies.labs.remote import LabError
from topologies.labs.vm.host import Host

KVM = ("-accel", "kvm", "-cpu", "host")
EMULATION = ("-accel", "tcg", "-cpu", "max,-la57")
PROBE_S = 4.0
MEMORY_MIB = 192
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


class Machine:
    """A running guest."""

    def __init__(self, host: Host, guest: Guest, kernel: debian.Kernel, initramfs: Path, extra: str = "") -> None:
        self.guest = guest
        self.console = host.folder / f"{guest.name}.console"
        cards: list[str] = []
        for number, nic in enumerate(guest.nics):
            tap = f"{guest.name}.{number}"
            host.plug(tap, nic)
            offloads = ",".join(f"{name}=off" for name in _OFFLOADS)
            cards += ["-netdev", f"tap,id=n{number},ifname={tap},script=no,downscript=no"]
            cards += ["-device", f"virtio-net-pci,netdev=n{number},mac={nic.mac},romfile=,{offloads}"]
        command_line = f"console=ttyS0 quiet mitigations=off nopti {guest.command_line()} {extra}"
        self.process = host.spawn(guest.name, [
            "qemu-system-x86_64", *accelerator(kernel.image), "-smp", "1", "-m", str(MEMORY_MIB), "-display", "none",
            "-vga", "none", "-nodefaults", "-no-reboot", "-serial", f"file:{self.console}", *cards,
            "-kernel", str(kernel.image), "-initrd", str(initramfs), "-append", command_line,
        ])  # fmt: skip

    def wait_until_ready(self, end: float) -> None:
        """Until its init serves commands; LabError at `end` (monotonic seconds) or when it dies."""
        while True:
            text = self.console.read_text("utf-8", "replace") if self.console.exists() else ""
            if "LAB-ERROR" in text or self.process.poll() is not None:
                raise LabError(f"{self.guest.name} failed: {text[-500:]}")
            if "LAB-GUEST-READY" in text:
                return
            if time.monotonic() > end:
                raise LabError(f"{self.guest.name} is not ready: {text[-500:]}")
            time.sleep(0.1)
