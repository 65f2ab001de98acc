"""Real packets: needs root, Open vSwitch and Mininet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from topologies.lab import Lab
from topologies.ovs import OpenVSwitch
from topologies.plan import RoutedTopo

NEEDED = ("ovs-vswitchd", "mnexec", "ethtool", "ping", "traceroute")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    missing = [tool for tool in NEEDED if shutil.which(tool) is None]
    why = "needs root" if os.geteuid() else f"not installed: {', '.join(missing)}" if missing else None
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.mininet)
            if why is not None:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def ovs() -> Iterator[OpenVSwitch]:
    """The Open vSwitch of all these tests."""
    with OpenVSwitch() as switch:
        yield switch


@pytest.fixture(scope="module")
def start_lab(ovs: OpenVSwitch) -> Iterator[Callable[[RoutedTopo], Lab]]:
    """Brings up a topology with its controller; all is taken down at the end of the module."""
    with ExitStack() as stack:

        def start(topo: RoutedTopo) -> Lab:
            lab = stack.enter_context(Lab(topo, ovs))
            lab.start_controller()
            return lab

        yield start
