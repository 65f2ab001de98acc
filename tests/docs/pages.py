"""The command blocks of a page of the documentation, in order.

A block marked `sh` is commands; in one marked `console` commands stand behind a prompt (`# `, `$ `), and what they print follows.
A comment `<!-- not run: WHY -->` before a block says that no test runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"(?:^<!-- not run: ([^\n]+) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPTS = ("# ", "$ ")


@dataclass(frozen=True)
class Block:
    """`why_not` is empty if it is run."""

    kind: str
    text: str
    why_not: str = ""

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command and what the page shows of its output; an `sh` block is one command."""
        if self.kind == "sh":
            yield self.text, ""
            return
        command, shown = "", ""
        for line in self.text.splitlines():
            if line.startswith(_PROMPTS):
                if command:
                    yield command, shown
                command, shown = line[2:], ""
            else:
                shown += f"{line}\n"
        yield command, shown


def blocks(page: str) -> list[Block]:
    """All blocks of a page that are commands or YAML."""
    text = (ROOT / page).read_text()
    return [Block(kind, body, why_not or "") for why_not, kind, body in _BLOCK.findall(text) if kind in ("sh", "console", "yaml")]


def to_run(page: str) -> list[Block]:
    """The command blocks that a test runs."""
    return [block for block in blocks(page) if block.kind != "yaml" and not block.why_not]


def yaml_of(page: str) -> str:
    """The one configuration that a page shows."""
    (found,) = [block.text for block in blocks(page) if block.kind == "yaml"]
    return found
