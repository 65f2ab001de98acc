"""A set-up Xen host for a whole test run, from the cache's snapshot; what tests do to it is thrown away."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

import pytest

from topologies.labs.plan import MAX_CHAIN, Plan
from topologies.labs.xen import snapshot
from topologies.labs.xen.lab import XenLab


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xen: a Xen host under emulation (root, minutes): make test-xen")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only where they are asked for (-m xen): nobody who runs all tests expects a host to be booted."""
    for item in items:
        if "tests/xen/" in item.nodeid:
            item.add_marker(pytest.mark.xen)
            if "xen" not in config.option.markexpr:
                item.add_marker(pytest.mark.skip(reason="run with: sudo make test-xen"))


@pytest.fixture(scope="session")
def lab() -> Iterator[XenLab]:
    if os.geteuid() != 0 or shutil.which("qemu-system-x86_64") is None or shutil.which("mmdebstrap") is None:
        pytest.skip("needs root, qemu-system-x86 and mmdebstrap: sudo make test-xen")
    with snapshot.lab("credit2", Plan(MAX_CHAIN), lambda text: print(text, file=sys.stderr, flush=True)) as running:
        yield running
