"""The controller on a private Open vSwitch, as in tests/faults, with more routers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from topologies.sandbox import available

from .host import Crowd


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    if not available():
        pytest.skip("Open vSwitch is not installed")
    crowd = Crowd(tmp_path)
    try:
        crowd.start()
        yield crowd
    finally:
        crowd.stop()
