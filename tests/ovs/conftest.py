"""A private Open vSwitch, a Ryu process and fresh bridges for the tests of this directory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from ovs_driver import Driver
from ovsdb_lab import Box

from topologies.sandbox import Sandbox, available


@pytest.fixture(scope="session")
def ovs() -> Iterator[Sandbox]:
    if not available():
        pytest.skip("Open vSwitch is not installed")
    sandbox = Sandbox()
    try:
        sandbox.start()
        yield sandbox
    finally:
        sandbox.stop()


@pytest.fixture
def box() -> Iterator[Box]:
    """An Open vSwitch of one test's own: br-a with two ports, br-b with one."""
    value = Box()
    try:
        value.start()
        value.add_bridge("br-a", ports=2)
        value.add_bridge("br-b", ports=1)
        yield value
    finally:
        value.stop()


@pytest.fixture(scope="session")
def driver(ovs: Sandbox) -> Iterator[Driver]:
    ryu = Driver(ovs)
    try:
        ryu.start()
        yield ryu
    finally:
        ryu.stop()


@pytest.fixture
def driver_of() -> Iterator[Callable[[Sandbox], Driver]]:
    """Ryu processes for sandboxes that a test starts by itself."""
    started: list[Driver] = []

    def start(sandbox: Sandbox) -> Driver:
        started.append(Driver(sandbox))
        started[-1].start()
        return started[-1]

    yield start
    for ryu in started:
        ryu.stop()


_numbers = itertools.count(1)


@pytest.fixture
def new_bridge(ovs: Sandbox) -> Iterator[Callable[[], str]]:
    """Makes bridges with three dummy ports (OpenFlow numbers 1 to 3), each with a name of its own."""
    made: list[str] = []

    def make() -> str:
        made.append(f"br{next(_numbers)}")
        ovs.add_bridge(made[-1], ports=3)
        return made[-1]

    yield make
    for bridge in made:
        ovs.del_bridge(bridge)


@pytest.fixture
def bridge(new_bridge: Callable[[], str]) -> str:
    return new_bridge()
