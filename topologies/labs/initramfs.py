"""The guests' file systems: an initramfs of a few megabytes for hosts, of a few more for routers.

Hosts hold busybox, iperf3 and `blast`; routers also Debian's Python with pyroute2 and the checkout's fsctl,
installed by pip as `fsctl[agent]`, exactly as an operator would install it in a router guest.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from topologies.labs import cache, debian

GUEST = Path(__file__).parent / "guest"
MODULES = ("xen-netfront", "virtio_pci", "virtio_net", "nf_tables")
HOST_PACKAGES = ("busybox-static", "iperf3", "libc6")
ROUTER_PACKAGES = (*HOST_PACKAGES, "iproute2", "nftables", "python3")
HOST_PROGRAMS = ("bin/busybox", "usr/bin/iperf3")
ROUTER_PROGRAMS = ("bin/ip", "bin/ss", "sbin/tc", "sbin/bridge", "usr/sbin/nft", "usr/bin/python3.11")
UNUSED_STDLIB = (
    "__pycache__", "test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data",
    "distutils", "config-3.11-x86_64-linux-gnu", "venv", "wsgiref", "dbm", "curses",
)  # fmt: skip
_LOADER = "lib64/ld-linux-x86-64.so.2"
PYTHON = Path("usr/lib/python3.11")


def _libraries(tree: Path, program: Path) -> list[Path]:
    """The shared libraries that a program of the tree loads, as paths inside it; none if it is static."""
    done = subprocess.run(
        ["chroot", str(tree), f"/{_LOADER}", "--list", f"/{program}"], capture_output=True, text=True, check=False
    )
    words = [line.split("=>")[1].split()[0] for line in done.stdout.splitlines() if "=> /" in line]
    return [Path(word.lstrip("/")) for word in words]


def _copy_programs(tree: Path, programs: list[Path], stage: Path) -> None:
    wanted = {Path(_LOADER), *programs, *(lib for program in programs for lib in _libraries(tree, program))}
    for path in wanted:
        target = stage / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2((tree / path).resolve(), target)


def _debian_tree(packages: tuple[str, ...]) -> Path:
    key = cache.fingerprint(",".join(packages))
    return cache.build("guest-tree", key, lambda path: debian.bootstrap(path, packages, "extract"))


def _copy_python(tree: Path, stage: Path) -> None:
    """The standard library as .pyc files only, its C modules that need no further libraries' packages."""
    skipped = shutil.ignore_patterns(*UNUSED_STDLIB, "*.a", "*_tkinter*", "*_curses*", "readline*")
    shutil.copytree(tree / PYTHON, stage / PYTHON, ignore=skipped, symlinks=False, ignore_dangling_symlinks=True)
    (stage / "usr/bin/python3").symlink_to("python3.11")
    extensions = [f.relative_to(tree) for f in (tree / PYTHON / "lib-dynload").glob("*.so")]
    kept = [f for f in extensions if (stage / f).exists()]
    _copy_programs(tree, kept, stage)


def _install_agent(stage: Path) -> None:
    """pip install of the checkout with its `agent` extra, into the stage; then sources to .pyc."""
    target = stage / "usr/lib/python3/dist-packages"
    with_extra = f"{cache.TREE}[agent]"
    debian.run(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", target, with_extra)
    script = stage / "usr/local/bin/fsctl-agent"
    script.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(target / "bin" / "fsctl-agent", script)
    script.write_text("#!/usr/bin/python3\n" + script.read_text().split("\n", 1)[1])
    for folder in (stage / PYTHON, target):
        debian.run(sys.executable, "-m", "compileall", "-q", "-b", "-j", "2", "-s", stage, "-p", "/", folder)
        for source in folder.rglob("*.py"):
            source.unlink()
        for folder_of_caches in folder.rglob("__pycache__"):
            shutil.rmtree(folder_of_caches)


def _fill(stage: Path, kernel: debian.Kernel, router: bool) -> None:
    for folder in ("bin", "dev", "proc", "sys", "tmp", "etc", "modules", "root", "run", "usr/local/bin"):
        (stage / folder).mkdir(parents=True, exist_ok=True)
    tree = _debian_tree(ROUTER_PACKAGES)
    programs = HOST_PROGRAMS + (ROUTER_PROGRAMS if router else ())
    _copy_programs(tree, [Path(p) for p in programs], stage)
    modules = kernel.modules(MODULES)
    for module in modules:
        shutil.copy2(module, stage / "modules")
    (stage / "modules/order").write_text("".join(f"{m.name}\n" for m in modules))
    shutil.copy2(GUEST / "init", stage / "init")
    debian.run("gcc", "-O2", "-static", "-s", "-o", stage / "bin/blast", GUEST / "blast.c")
    if router:
        shutil.copy2(GUEST / "lab-agent", stage / "usr/local/bin/lab-agent")
        _copy_python(tree, stage)
        _install_agent(stage)


def pack(stage: Path, target: Path) -> None:
    """A gzipped cpio archive in the kernel's `newc` format."""
    pipeline = f"find . | cpio --quiet -o -H newc -R 0:0 | gzip -3 > '{target}'"
    debian.run("bash", "-o", "pipefail", "-c", pipeline, cwd=stage)


def initramfs(kernel: debian.Kernel, router: bool) -> Path:
    """The initramfs of a host or of a router, built unless the cache has it."""
    sources = cache.sources("fsctl", "topologies/labs/guest") if router else cache.sources("topologies/labs/guest")
    packaging = [f for f in (cache.TREE / "pyproject.toml", cache.TREE / "setup.cfg") if f.exists() and router]
    key = cache.fingerprint(kernel.release, Path(__file__), sources + packaging)

    def make(path: Path) -> None:
        stage = path.with_name("stage")
        _fill(stage, kernel, router)
        pack(stage, path)

    return cache.build("router.cpio.gz" if router else "host.cpio.gz", key, make)
