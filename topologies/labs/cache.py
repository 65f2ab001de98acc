"""Where the labs keep what takes long to build: outside the tree, named by what it was built from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
"""The checkout."""


def cache_dir() -> Path:
    """`FSCTL_LAB_CACHE`, else `~/.cache/fsctl-lab`."""
    root = Path(os.environ.get("FSCTL_LAB_CACHE") or Path.home() / ".cache" / "fsctl-lab")
    root.mkdir(parents=True, exist_ok=True)
    return root


def fingerprint(*parts: str | Path | Iterable[Path]) -> str:
    """A short hash of texts and of files' contents."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode() + b"\0")
            continue
        for file in [part] if isinstance(part, Path) else sorted(part):
            name = file.relative_to(TREE) if file.is_relative_to(TREE) else Path(file.name)
            digest.update(str(name).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def sources(*folders: str) -> list[Path]:
    """The files below these folders of the checkout that can change what runs in a guest."""
    found = [f for folder in folders for f in (TREE / folder).rglob("*") if f.is_file()]
    return sorted(f for f in found if "__pycache__" not in f.parts and f.suffix not in {".pyc", ".log"})


def build(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """`<cache>/<name>-<key>`, made by `make(path)` unless it is there; older ones of that name go.

    `make` gets a temporary path, so that an interrupted build leaves nothing that looks complete.
    """
    target = cache_dir() / f"{name}-{key}"
    with _alone(name):
        if not target.exists():
            _make(target, name, key, make)
    return target


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Nobody else builds this meanwhile; who comes second finds it built."""
    locks = cache_dir() / ".locks"
    locks.mkdir(exist_ok=True)
    with (locks / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(target: Path, name: str, key: str, make: Callable[[Path], None]) -> None:
    for old in cache_dir().glob(f"{name}-" + "?" * len(key)):
        remove(old)
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".building-") as scratch:
        path = Path(scratch) / target.name
        make(path)
        path.rename(target)


def remove(path: Path) -> None:
    """Delete a file or a folder of the cache."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
