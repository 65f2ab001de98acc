"""The VM lab with one router, for a whole test run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from topologies.labs.plan import Plan
from topologies.labs.vm import snapshot
from topologies.labs.vm.lab import VmLab


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vm: QEMU virtual machines (root, minutes): make test-vm")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only where they are asked for (-m vm): nobody who runs all tests expects a host to be booted."""
    for item in items:
        if "tests/vm/" in item.nodeid:
            item.add_marker(pytest.mark.vm)
            if "vm" not in config.option.markexpr:
                item.add_marker(pytest.mark.skip(reason="run with: sudo make test-vm"))


@pytest.fixture(scope="session")
def lab() -> Iterator[VmLab]:
    if os.geteuid() != 0 or shutil.which("qemu-system-x86_64") is None or shutil.which("mmdebstrap") is None:
        pytest.skip("needs root, qemu-system-x86 and mmdebstrap: sudo make test-vm")
    with snapshot.lab(Plan(2)) as running:
        yield running
