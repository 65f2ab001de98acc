"""A Python environment of its own for each peer, kept outside the tree: their versions of things must not be ours."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from topologies.experiments.report import SkippedError
from topologies.labs import cache
from topologies.processes import LabError, run

CONSTRAINTS = cache.TREE / "tools" / "constraints.txt"
INSTALL_TIMEOUT_S = 600.0
SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian's: an environment must not depend on whatever Python this one was made from."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What is installed from PyPI, and whether its eventlet needs fsctl's help (`fsctl.compat`)."""

    name: str
    requirements: tuple[str, ...]
    shim: bool = False


REST_ROUTER = Peer("peer-ryu", ("ryu==4.34", "eventlet>=0.36,<0.42"), shim=True)
FAUCET = Peer("peer-faucet", ("faucet==1.10.12",))


def key(peer: Peer) -> str:
    """Changes with all that the environment was made from."""
    python = f"{SYSTEM_PYTHON} {platform.machine()}"
    return cache.fingerprint(python, *peer.requirements, str(peer.shim), CONSTRAINTS)


def python_of(peer: Peer) -> Path:
    """The interpreter of the peer's environment, made now if it is not there. SkippedError if that cannot be done."""
    try:
        return cache.build(peer.name, key(peer), lambda path: _make(peer, path)) / "bin" / "python"
    except LabError as e:
        raise SkippedError(f"{' '.join(peer.requirements)} cannot be installed: {str(e).strip().splitlines()[-1]}") from e


def _make(peer: Peer, path: Path) -> None:
    """A venv does not mind being renamed as long as what it holds is started by `python -m`."""
    bounds = dict.fromkeys(("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"), str(CONSTRAINTS))
    env = os.environ | bounds | {"PIP_ROOT_USER_ACTION": "ignore"}
    run(SYSTEM_PYTHON, "-m", "venv", str(path))
    python = str(path / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", *peer.requirements, timeout_s=INSTALL_TIMEOUT_S, env=env)
    if peer.shim:
        run(python, "-m", "fsctl.compat", env=environ(peer))


def environ(peer: Peer) -> dict[str, str]:
    """The environment of the peer's processes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "FSCTL_"))}
    return kept | ({"PYTHONPATH": str(cache.TREE)} if peer.shim else {})
