"""Tables for people, JSON for programs, never a colour code or a broken line in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_NO_TERMINAL_WIDTH = 100_000
"""Where nobody looks at columns, lines are as long as what they say."""
_STYLES = {
    "installed": "green", "yes": "green", "up": "green", "ready": "green",
    "slow_path": "yellow", "down": "red", "refused": "red", "no": "red",
}  # fmt: skip


class Output:
    """Where results go. `as_json`: print only JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        width = None if sys.stdout.isatty() else _NO_TERMINAL_WIDTH
        self._console = Console(file=sys.stdout, width=width, highlight=False, emoji=False)

    def json(self, value: Any) -> None:
        print(json.dumps(value, indent=2))

    def line(self, text: str, style: str = "") -> None:
        """A line as it is."""
        self._console.print(Text(text, style=style), soft_wrap=True)

    def note(self, text: str) -> None:
        """What is no result: to standard error."""
        print(f"fsctl: {text}", file=sys.stderr)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
        """Columns whose names end in ">" are aligned to the right."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in columns:
            table.add_column(name.rstrip(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(str(cell), style=_STYLES.get(str(cell), "")) for cell in row))
        if not table.row_count:
            self.line(empty)
            return
        with self._console.capture() as printed:
            self._console.print(table)
        for line in printed.get().splitlines():
            print(line.rstrip())
