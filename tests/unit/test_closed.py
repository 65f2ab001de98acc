"""Files and units are closed (D18, D24)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fsctl.store import SqliteStore

UNITS = Path(__file__).parents[2] / "contrib" / "systemd"
MOST_EXPOSED = 2.0


def test_d18_nobody_else_reads_the_store_or_holds_its_lock(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        place = tmp_path / "made" / "store.db"
        for _ in range(2):
            SqliteStore(str(place)).close()
            store = SqliteStore(str(place))
            modes = {path.name: path.stat().st_mode & 0o777 for path in place.parent.iterdir()}
            store.close()
            assert set(modes.values()) == {0o600}, modes
            assert place.parent.stat().st_mode & 0o777 == 0o700
            place.chmod(0o644)  # as an older fsctl has left it
    finally:
        os.umask(before)


@pytest.mark.parametrize("unit", ["fsctl.service", "fsctl-agent.service"])
def test_d24_units_are_little_exposed(unit: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNITS / unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    level = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    assert level, said
    assert float(level[1]) <= MOST_EXPOSED
