"""The paper's measurement on a real Xen host, one router; deterministic, because time is counted in instructions.

The bounds are what the bypass must be worth at least (figures 6 and 7 of the paper: 1.4 and 2.4).
"""

from __future__ import annotations

import re

import pytest

from topologies.labs.measure import RTT, TCP, UDP, Run, Spec, measure
from topologies.labs.plan import DIRECT, destination, way_back
from topologies.labs.xen.__main__ import set_rate_limit
from topologies.labs.xen.lab import XenLab

SPEC = Spec(chains=(1,), message_bytes=(65536,), frame_bytes=(64,), seconds=2.0)
SIZES = {TCP: 65536, UDP: 64, RTT: 0}


@pytest.fixture(scope="module")
def default(lab: XenLab) -> Run:
    set_rate_limit(lab, "credit2", 1000)
    return measure(lab, "Xen's defaults", SPEC)


@pytest.fixture(scope="module")
def no_rate_limit(lab: XenLab) -> Run:
    set_rate_limit(lab, "credit2", 0)
    try:
        return measure(lab, "rate limit 0", SPEC)
    finally:
        set_rate_limit(lab, "credit2", 1000)


@pytest.mark.parametrize(("kind", "at_least"), [(TCP, 1.35), (UDP, 1.4)])
def test_gain_with_xens_defaults(default: Run, kind: str, at_least: float) -> None:
    assert default.ratio(kind, 1, SIZES[kind]) >= at_least


@pytest.mark.parametrize(("kind", "at_least"), [(TCP, 1.8), (UDP, 2.2)])
def test_gain_without_rate_limit(no_rate_limit: Run, kind: str, at_least: float) -> None:
    assert no_rate_limit.ratio(kind, 1, SIZES[kind]) >= at_least


@pytest.mark.parametrize("kind", [TCP, UDP])
def test_bypass_is_as_good_as_plain_l2(default: Run, kind: str) -> None:
    ceiling = default.median(kind, DIRECT, False, SIZES[kind])
    assert default.median(kind, 1, True, SIZES[kind]) >= 0.95 * ceiling


def test_round_trips_are_shorter(default: Run) -> None:
    assert default.ratio(RTT, 1, 0) > 1


def test_the_router_sees_no_data(default: Run) -> None:
    bypassed = [s for s in default.samples if s.bypass]
    assert bypassed
    assert sum(s.forwarded for s in bypassed) <= 2


def test_the_router_forwarded_everything_before(default: Run) -> None:
    routed = [s for s in default.samples if not s.bypass and s.chain == 1]
    assert min(s.forwarded for s in routed) >= 40  # 20 pings and their answers are the least of it


def test_ttl_is_what_a_router_leaves(default: Run) -> None:
    ttls = {(s.bypass, s.ttl) for s in default.samples if s.kind == UDP and s.chain == 1}
    assert ttls == {(False, (63, 63)), (True, (63, 63))}


@pytest.mark.parametrize("chain", [1, 2, 3])
def test_traceroute_shows_every_router_while_bypassed(lab: XenLab, default: Run, chain: int) -> None:
    lab.fsctl.wait_for_bypass(True)
    assert lab.fsctl.bypassed_hops(chain) == chain
    lab.on(lab.plan.nodeb, way_back(chain))
    out = lab.on(lab.plan.nodea, f"traceroute -n -q 1 -w 2 {destination(chain)}")
    hops = re.findall(r"^ *\d+ +(\S+)", out, re.M)
    routers = [router.nics[0].address.split("/")[0] for router in lab.plan.routers[:chain]]
    assert hops == [*routers, destination(chain)]
