"""The house of docs/architecture.md: who may import whom, and which outside library."""

from __future__ import annotations

import ast
import fnmatch
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ALLOWED = {
    "ryu": ["fsctl.app", "fsctl.start", "fsctl.southbound*", "fsctl.compat"],
    "ovs": ["fsctl.ovsdb.connection"],
    "sqlite3": ["fsctl.store*"],
    "mininet": [],
}
"""Outside library -> the only modules that may import it."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Names of all modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("library", ALLOWED)
def test_outside_library_stays_in_its_module(library: str) -> None:
    sources = sorted((ROOT / "fsctl").rglob("*.py"))
    assert sources
    wrong = [
        module_name(path)
        for path in sources
        if any(name.split(".")[0] == library for name in imported(path))
        and not any(fnmatch.fnmatch(module_name(path), pattern) for pattern in ALLOWED[library])
    ]
    assert wrong == []


def test_layers_of_the_architecture_page() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
