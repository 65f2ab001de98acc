"""What one sender can do to the cache of Open vSwitch that all tenants share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fsctl.model.addresses import IPV4
from fsctl.model.ip_protocols import BYPASSED_PROTOCOLS
from topologies.experiments.cache import PROTOCOLS, cached
from topologies.lab import Lab
from topologies.plan import RoutedTopo
from topologies.topos import Measured

TTLS = range(100, 108)
FEW = 4
"""Flows of the hosts' own ARP and the like."""


@pytest.fixture(scope="module")
def lab(start_lab: Callable[[RoutedTopo], Lab]) -> Lab:
    return start_lab(Measured(n=1))


def test_fault_D14_every_protocol_with_every_ttl_makes_few_cached_flows(lab: Lab) -> None:
    """Before: protocols x TTLs."""
    lab.delegate()
    flows = cached(lab, PROTOCOLS, TTLS)
    admitted = len(BYPASSED_PROTOCOLS[IPV4])
    assert admitted * len(TTLS) <= flows <= admitted * len(TTLS) + len(PROTOCOLS) - admitted + FEW


def test_fault_D14_what_nobody_has_delegated_is_looked_at_as_a_bridge_does(lab: Lab) -> None:
    """Before: a flow for each protocol."""
    lab.withdraw()
    assert 1 <= cached(lab, PROTOCOLS, TTLS) <= FEW
