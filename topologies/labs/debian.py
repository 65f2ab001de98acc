"""Debian's kernels, Xen and root file systems, fetched with apt and unpacked into the cache.

Nothing is installed on the machine; the packages' signatures are checked by apt as always.
"""

from __future__ import annotations

import lzma
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from topologies.labs import cache

HOST_KERNEL, GUEST_KERNEL = "linux-image-amd64", "linux-image-cloud-amd64"
HYPERVISOR = "xen-hypervisor-4.17-amd64"
_NO_DOCS = ("man", "locale", "doc", "info")
_XZ, _LZ4, _ELF = b"\xfd7zXZ", b"\x02\x21\x4c\x18", b"\x7fELF"


def run(*argv: str | Path, **options: object) -> str:
    """A command's standard output; raises CalledProcessError with its words on failure."""
    done = subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    return str(done.stdout)


def real_package(name: str) -> str:
    """The versioned kernel package that a meta package stands for; other names stay."""
    found = re.search(r"Depends: (linux-image-\d\S+)", run("apt-cache", "depends", name))
    return found.group(1) if found else name


def unpacked(name: str) -> Path:
    """The contents of a Debian package, in the cache."""
    package = real_package(name)
    version = run("apt-cache", "show", "--no-all-versions", package)
    found = re.search(r"^Version: (\S+)", version, re.M)
    assert found, f"apt knows no version of {package}"

    def make(path: Path) -> None:
        path.mkdir()
        run("apt-get", "-qq", "download", package, cwd=path)
        (deb,) = path.glob("*.deb")
        run("dpkg-deb", "-x", deb, path)
        deb.unlink()
        for release in path.glob("lib/modules/*"):
            run("depmod", "-b", path, release.name)

    return cache.build(package, cache.fingerprint(found.group(1)), make)


class Kernel:
    """An unpacked Debian kernel package."""

    def __init__(self, package: str) -> None:
        self.root = unpacked(package)
        (self.image,) = self.root.glob("boot/vmlinuz-*")
        self.release = self.image.name.removeprefix("vmlinuz-")

    def modules(self, names: Iterable[str]) -> list[Path]:
        """The files of these modules and of all they need, in loading order; built-in ones have none."""
        found: dict[Path, None] = {}
        for name in names:
            out = run("modprobe", "-d", self.root, "-S", self.release, "--show-depends", name)
            for line in out.splitlines():
                if line.startswith("insmod "):
                    found[Path(line.split()[1])] = None
        return list(found)

    def vmlinux(self) -> Path:
        """The uncompressed ELF image, which Xen's domain builder takes without unpacking it slowly itself."""
        data = self.image.read_bytes()

        def make(path: Path) -> None:
            path.write_bytes(decompress(bzimage_payload(data)))

        return cache.build("vmlinux-" + self.release, cache.fingerprint(self.image), make)


def bzimage_payload(image: bytes) -> bytes:
    """The compressed kernel inside a bzImage (Linux, Documentation/x86/boot.rst: payload_offset, payload_length)."""
    if image[0x202:0x206] != b"HdrS":
        raise ValueError("not a bzImage: the boot protocol's signature is missing")
    start = (image[0x1F1] + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    return image[start : start + int.from_bytes(image[0x24C:0x250], "little")]


def decompress(payload: bytes) -> bytes:
    """A kernel payload (xz or legacy lz4, as Debian makes them; four bytes of size follow it) as ELF."""
    if payload.startswith(_XZ):
        image = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(_LZ4):
        image = subprocess.run(["lz4", "-dc"], input=payload[:-4], capture_output=True, check=True).stdout
    else:
        raise ValueError(f"unknown kernel compression {payload[:6]!r}")
    if not image.startswith(_ELF):
        raise ValueError("the kernel payload is no ELF image")
    return image


def bootstrap(target: Path, packages: Sequence[str], variant: str = "minbase") -> None:
    """A Debian 12 tree with these packages; variant `extract` only unpacks them."""
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _NO_DOCS]
    run(
        "mmdebstrap", "--quiet", "--mode=root", f"--variant={variant}", "--format=directory",
        "--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\"",
        *options, "--include=" + ",".join(packages), "bookworm", target,
    )  # fmt: skip
