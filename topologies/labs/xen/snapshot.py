"""The set-up Xen lab as a snapshot in the cache, so that the next run starts where set-up ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from topologies.labs import cache
from topologies.labs.fsctl_setup import Tokens
from topologies.labs.plan import Plan
from topologies.labs.xen.image import Image, image
from topologies.labs.xen.lab import XenLab
from topologies.labs.xen.machine import Machine

SCHEDULERS = ("credit2", "credit")
_SETUP = ("plan.py", "fsctl_setup.py", "xen/lab.py", "xen/machine.py")


def _key(built: Image, plan: Plan) -> str:
    labs = Path(__file__).parents[1]
    return cache.fingerprint(built.key, str(plan.length), [labs / name for name in _SETUP])


def lab(scheduler: str, plan: Plan, say: Callable[[str], None] = lambda _: None) -> XenLab:
    """A lab that is set up and running: resumed if the cache has it, else set up, saved and resumed."""
    say("dom0 and guests: building what the cache does not have (2 minutes from nothing)")
    built = image()

    def make(folder: Path) -> None:
        say(f"booting Xen with the scheduler {scheduler} and setting the lab up (4 minutes)")
        folder.mkdir()
        with XenLab.boot(built, scheduler, plan) as fresh:
            fresh.set_up()
            fresh.bypass(True)
            tokens = {"admin": fresh.tokens.admin, "routers": fresh.tokens.routers}
            (folder / "tokens.json").write_text(json.dumps(tokens))
            fresh.machine.save(folder / "disk.qcow2")

    folder = cache.build(f"xen-{scheduler}", _key(built, plan), make)
    tokens = Tokens(**json.loads((folder / "tokens.json").read_text()))
    say(f"resuming the lab ({scheduler})")
    return XenLab(Machine(built, scheduler, folder / "disk.qcow2"), plan, tokens)
