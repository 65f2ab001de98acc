"""Each fault of the second examination, by its number. Needs Open vSwitch, no root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from topologies.sandbox import available

from .host import Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    if not available():
        pytest.skip("Open vSwitch is not installed")
    host = Host(tmp_path)
    try:
        host.start()
        yield host
    finally:
        host.stop()
