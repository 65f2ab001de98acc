"""A controller whose switches are made of paper, for one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .paper import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.stop()
