"""Many commands for `ip` in few processes; what the kernel refuses is passed over."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator

from tests.agent.netns import Namespace

ENDS_A_BATCH = "neigh del"
"""Upon an entry that is not there, `ip -force -batch` (iproute2 6.1) ends without a word: the rest would not be carried out."""


def batch(ns: Namespace, commands: Iterable[str]) -> None:
    """In the order given. A batch knows no `-6`: the family follows from the addresses (::/0 instead of default)."""
    for lines in _batches(commands):
        text = "".join(f"{line}\n" for line in lines)
        words = ["ip", "-n", ns.name, "-force", "-batch", "-"]
        done = subprocess.run(words, input=text, text=True, capture_output=True, check=False, timeout=120)
        assert "is unknown" not in done.stderr, done.stderr


def _batches(commands: Iterable[str]) -> Iterator[list[str]]:
    lines: list[str] = []
    for command in commands:
        lines.append(command)
        if command.startswith(ENDS_A_BATCH):
            yield lines
            lines = []
    if lines:
        yield lines
