"""The emulated machine that Xen runs on: booted, saved as a snapshot, resumed, ended.

`-icount shift=1,sleep=off` makes the machine's time follow the instructions it has executed: two
nanoseconds each, idle time skipped. What else this computer does then changes nothing in a measurement.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from topologies.labs import cache
from topologies.labs.debian import run
from topologies.labs.qmp import Qmp
from topologies.labs.remote import WITH_PARENT, LabError, SocketChannel, Station
from topologies.labs.xen.image import Image

SNAPSHOT = "ready"
MEMORY_MIB, DOM0_MIB = 2816, 1024
# dom0 dies at its first return to user space with smap/smep; iperf3 in a domU with AVX (TCG, QEMU 7.2).
CPU = "max,-smap,-smep,-pku,-pks,-la57,-xsave,-avx,-avx2,-f16c,-fma"
XEN_OPTIONS = (
    f"console=com1 com1=115200,8n1 dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M dom0_max_vcpus=1 noreboot "
    "xpti=no spec-ctrl=no smep=0 smap=0 ucode=no cpuidle=0"
)
DOM0_OPTIONS = "console=hvc0 quiet mitigations=off nopti audit=0"
BOOT_S = 420.0
NICE = 10


class Machine:
    """A running emulated machine; its disk is a throw-away overlay."""

    def __init__(self, image: Image, scheduler: str, snapshot: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fsctl-xen-", dir=cache.cache_dir()))
        self.disk = self.folder / "disk.qcow2"
        if snapshot is None:
            run("qemu-img", "create", "-q", "-f", "qcow2", "-b", image.disk, "-F", "raw", self.disk)
        else:
            run("cp", "--reflink=auto", snapshot, self.disk)
        argv = self._command(image, scheduler, resume=snapshot is not None)
        with (self.folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._qmp = Qmp(self._wait_for("qmp.sock"))
        self._channel = SocketChannel(self._wait_for("station.sock"))
        self.station = Station(self._channel)

    def _command(self, image: Image, scheduler: str, resume: bool) -> list[str]:
        def serial(name: str) -> list[str]:
            path, log = self.folder / f"{name}.sock", self.folder / f"{name}.log"
            return ["-chardev", f"socket,id={name},path={path},server=on,wait=off,logfile={log}", "-serial", f"chardev:{name}"]

        return [
            *WITH_PARENT, "nice", "-n", str(NICE), "qemu-system-x86_64", "-accel", "tcg,thread=single",
            "-icount", "shift=1,sleep=off", "-smp", "1", "-cpu", CPU,
            "-m", str(MEMORY_MIB), "-display", "none", "-vga", "none", "-net", "none", "-no-reboot",
            *serial("console"), *serial("station"), "-qmp", f"unix:{self.folder}/qmp.sock,server=on,wait=off",
            "-drive", f"file={self.disk},format=qcow2,if=none,id=disk,cache=unsafe", "-device", "virtio-blk-pci,drive=disk",
            "-kernel", str(image.hypervisor), "-append", f"{XEN_OPTIONS} sched={scheduler}",
            "-initrd", f"{image.kernel} {DOM0_OPTIONS},{image.initrd}",
            *(["-loadvm", SNAPSHOT] if resume else []),
        ]  # fmt: skip

    def _wait_for(self, name: str) -> Path:
        path = self.folder / name
        end = time.monotonic() + 60
        while not path.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise LabError(f"QEMU did not start: {(self.folder / 'qemu.log').read_text()}")
            time.sleep(0.05)
        return path

    @property
    def console(self) -> str:
        """What Xen and dom0 have written so far."""
        return (self.folder / "console.log").read_text("utf-8", "replace")

    def wait_for_console(self, wanted: str, timeout_s: float = BOOT_S) -> None:
        """Until dom0's console shows `wanted`; LabError when it shows trouble or nothing in time."""
        end = time.monotonic() + timeout_s
        while wanted not in self.console:
            if "LAB-ERROR" in self.console or self._process.poll() is not None or time.monotonic() > end:
                raise LabError(f"dom0 did not come up:\n{self.console[-3000:]}")
            time.sleep(0.5)

    def save(self, target: Path) -> None:
        """Save memory and disk as the snapshot file `target`; the machine ends by that."""
        self._qmp.human(f"savevm {SNAPSHOT}", timeout_s=300)
        if SNAPSHOT not in self._qmp.human("info snapshots", timeout_s=30):
            raise LabError("QEMU saved no snapshot")
        self._stop()
        shutil.move(self.disk, target)
        self.close()

    def pause(self) -> None:
        """Stop emulating: an idle machine with skipped idle time would keep a processor busy."""
        self._qmp.human("stop", timeout_s=30)

    def resume(self) -> None:
        self._qmp.human("cont", timeout_s=30)

    def _stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def close(self) -> None:
        """End the machine and delete its overlay."""
        self._stop()
        if self.folder.exists():
            cache.remove(self.folder)
