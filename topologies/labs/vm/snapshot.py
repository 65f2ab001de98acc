"""The set-up VM lab as a snapshot in the cache, so that the next run starts where set-up ended."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from topologies.labs import cache
from topologies.labs.plan import Plan
from topologies.labs.remote import LabError
from topologies.labs.vm.lab import Saved, VmLab
from topologies.labs.vm.qemu import EMULATION, Images, accelerator

_SETUP = ("plan.py", "fsctl_setup.py", "vm/host.py", "vm/lab.py", "vm/qemu.py", "vm/snapshot.py")
_MODEL = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")


def cpu_model(cpuinfo: str) -> str:
    """What kind of processor /proc/cpuinfo tells of; how fast it runs just now is left out."""
    first, _, _ = cpuinfo.partition("\n\n")
    fields = dict(re.findall(r"^(.*?)\s*: (.*)$", first, re.M))
    return "\n".join(f"{name}: {fields.get(name)}" for name in _MODEL)


def key(images: Images, plan: Plan, accelerated: tuple[str, ...], qemu: str, cpuinfo: str) -> str:
    """Names all that a saved guest holds or needs to find again. With KVM it holds its processor's state too."""
    labs = Path(__file__).parents[1]
    boots_from = (images.kernel.root.name, images.host.name, images.router.name)
    processor = "" if accelerated == EMULATION else cpu_model(cpuinfo)
    return cache.fingerprint(
        *boots_from, str(plan.length), " ".join(accelerated), qemu, processor, [labs / name for name in _SETUP]
    )


def _key(images: Images, plan: Plan) -> str:
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    return key(images, plan, accelerator(images.kernel.image), qemu, Path("/proc/cpuinfo").read_text())


def lab(plan: Plan, say: Callable[[str], None] = lambda _: None) -> VmLab:
    """A running lab: resumed if the cache has it; else, or if that fails, booted and saved."""
    say("guests' kernel and file systems: building what the cache does not have")
    images = Images.built()
    name, of = f"vm-{plan.length}", _key(images, plan)
    booted: list[VmLab] = []

    def make(folder: Path) -> None:
        say("booting the guests (half a minute), and saving a snapshot of them")
        booted.append(VmLab(plan, images))
        booted[0].bypass(True)
        booted[0].save(folder)

    try:
        while not booted:
            folder = cache.build(name, of, make)
            if not booted and (resumed := _resumed(plan, images, folder, say)):
                return resumed
    except (LabError, OSError) as e:
        if not booted:
            raise
        say(f"going on without a snapshot: {e}")
    except BaseException:
        for running in booted:
            running.close()
        raise
    return booted[0]


def _resumed(plan: Plan, images: Images, folder: Path, say: Callable[[str], None]) -> VmLab | None:
    """The lab of this snapshot. None where it cannot be resumed, whatever the reason: then the snapshot is gone."""
    say("resuming the guests from their snapshot")
    try:
        return VmLab(plan, images, Saved.load(folder))
    except Exception as e:  # noqa: BLE001 - the lab comes up without it
        say(f"the snapshot cannot be resumed: {e}")
    if folder.exists():
        cache.remove(folder)
    return None
