"""dom0's disk: Debian 12 with Xen's toolstack, Open vSwitch, fsctl and Ryu, and the guests' kernel.

fsctl gets into dom0 as an operator puts it there: wheels, a virtual environment below /opt/fsctl, pip.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from topologies.labs import cache, debian
from topologies.labs.initramfs import initramfs, pack

HERE = Path(__file__).parent
PACKAGES = (
    "xen-utils-4.17", "xenstore-utils", "openvswitch-switch", "iproute2", "iputils-ping", "kmod", "iperf3",
    "tcpdump", "ethtool", "procps", "python3-venv", "traceroute", "busybox-static", "curl",
)  # fmt: skip
DOM0_MODULES = (
    "openvswitch", "xen-netback", "xen-blkback", "xenfs", "xen-privcmd", "xen-evtchn", "xen-gntdev",
    "xen-gntalloc", "tun", "dummy",
)  # fmt: skip
INITRD_MODULES = ("crc32c_generic", "virtio_pci", "virtio_blk", "ext4")
DISK_MIB = 1536
VENV = "/opt/fsctl"
CONTRIB = cache.TREE / "contrib" / "xen"


@dataclass(frozen=True, slots=True)
class Image:
    """What QEMU boots. `key` names everything that went into it."""

    hypervisor: Path
    kernel: Path
    initrd: Path
    disk: Path
    key: str


def _base() -> Path:
    """Debian with the toolstack and a virtual environment with fsctl's dependencies: changes rarely."""
    packaging = [cache.TREE / "pyproject.toml", cache.TREE / "setup.cfg", cache.TREE / "tools" / "constraints.txt"]
    key = cache.fingerprint(",".join(PACKAGES), packaging)

    def make(path: Path) -> None:
        debian.bootstrap(path, PACKAGES)
        wheels = path / "wheels"
        _wheels(wheels, f"{cache.TREE}[controller]")
        debian.run("chroot", path, "python3", "-m", "venv", "--system-site-packages", VENV)
        _pip(path, *(f"/wheels/{w.name}" for w in wheels.glob("*.whl") if not w.name.startswith("fsctl-")))
        shutil.rmtree(wheels)

    return cache.build("dom0-base", key, make)


def _wheels(target: Path, *what: str) -> None:
    """Wheels made on this machine, whose pip knows the way to the package index."""
    constraint = cache.TREE / "tools" / "constraints.txt"
    debian.run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", target, *what,
        env={**os.environ, "PIP_CONSTRAINT": str(constraint), "PIP_BUILD_CONSTRAINT": str(constraint)},
    )  # fmt: skip


def _pip(root: Path, *what: str) -> None:
    debian.run("chroot", root, f"{VENV}/bin/pip", "install", "--quiet", "--no-index", "--no-deps", *what,
               env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"})  # fmt: skip


def _install_fsctl(root: Path) -> None:
    wheels = root / "wheels"
    debian.run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, cache.TREE)
    _pip(root, *(f"/wheels/{w.name}" for w in wheels.glob("fsctl-*.whl")))
    debian.run("chroot", root, f"{VENV}/bin/python", "-m", "fsctl.compat")
    shutil.rmtree(wheels)
    for name in ("fsctl", "ryu-manager"):
        (root / "usr/local/bin" / name).symlink_to(f"{VENV}/bin/{name}")
    shutil.copy2(CONTRIB / "vif-fsctl", root / "etc/xen/scripts/vif-fsctl")


def _install_modules(root: Path, kernel: debian.Kernel) -> None:
    target = root / "lib/modules" / kernel.release
    source = kernel.root / "lib/modules" / kernel.release
    for module in [*kernel.modules(DOM0_MODULES), *source.glob("modules.*")]:
        place = target / module.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(module, place)
    debian.run("depmod", "-b", root, kernel.release)


def _install_lab(root: Path) -> None:
    guest_kernel = debian.Kernel(debian.GUEST_KERNEL)
    lab = root / "opt/lab"
    lab.mkdir()
    shutil.copy2(guest_kernel.vmlinux(), lab / "vmlinux")
    shutil.copy2(initramfs(guest_kernel, router=False), lab / "host.cpio.gz")
    shutil.copy2(initramfs(guest_kernel, router=True), lab / "router.cpio.gz")
    shutil.copy2(HERE / "dom0/init", lab / "init")
    shutil.copy2(HERE.parent / "station.py", lab / "station.py")
    shutil.copy2(HERE / "dom0/switches.py", lab / "switches.py")


def _initrd(kernel: debian.Kernel) -> Path:
    key = cache.fingerprint(kernel.release, Path(__file__), HERE / "dom0/initrd-init")

    def make(path: Path) -> None:
        stage = path.with_name("stage")
        for folder in ("bin", "dev", "proc", "sys", "new", "modules"):
            (stage / folder).mkdir(parents=True)
        shutil.copy2(_base() / "bin/busybox", stage / "bin/busybox")
        modules = kernel.modules(INITRD_MODULES)
        for module in modules:
            shutil.copy2(module, stage / "modules")
        (stage / "modules/order").write_text("".join(f"{m.name}\n" for m in modules))
        shutil.copy2(HERE / "dom0/initrd-init", stage / "init")
        pack(stage, path)

    return cache.build("dom0-initrd", key, make)


def _hypervisor() -> Path:
    package = debian.unpacked(debian.HYPERVISOR)
    (packed,) = package.glob("boot/xen-*.gz")

    def make(path: Path) -> None:
        path.write_bytes(gzip.decompress(packed.read_bytes()))

    return cache.build("xen.elf", cache.fingerprint(packed), make)


def image() -> Image:
    """Everything that the Xen lab boots, built unless the cache has it."""
    kernel = debian.Kernel(debian.HOST_KERNEL)
    lab = [HERE.parent / "station.py", HERE.parent / "initramfs.py", Path(__file__)]
    files = cache.sources("fsctl", "topologies/labs/guest", "topologies/labs/xen/dom0", "contrib/xen")
    key = cache.fingerprint(kernel.release, files + lab + [cache.TREE / "pyproject.toml", cache.TREE / "setup.cfg"])

    def make(path: Path) -> None:
        root = path.with_name("root")
        debian.run("cp", "-a", "--reflink=auto", _base(), root)
        _install_modules(root, kernel)
        _install_fsctl(root)
        _install_lab(root)
        with path.open("wb") as disk:
            disk.truncate(DISK_MIB << 20)
        debian.run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m0", "-d", root, path)

    disk = cache.build("dom0-disk", key, make)
    return Image(_hypervisor(), kernel.vmlinux(), _initrd(kernel), disk, key)
