"""The bypass on QEMU virtual machines: what arrives, and by which way. No figures: real time is not repeatable."""

from __future__ import annotations

import re

import pytest

from topologies.labs.measure import RTT, TCP, UDP, Run, Spec, measure
from topologies.labs.plan import DIRECT, destination, way_back
from topologies.labs.vm.lab import VmLab

SPEC = Spec(chains=(1, 2), message_bytes=(16384,), frame_bytes=(64,), seconds=1.0)


@pytest.fixture(scope="module")
def run(lab: VmLab) -> Run:
    return measure(lab, "vm", SPEC)


def test_everything_was_measured(run: Run) -> None:
    paths = {(s.chain, s.bypass, s.kind) for s in run.samples if s.value > 0}
    expected = {(DIRECT, False), (1, False), (2, False), (1, True), (2, True)}
    assert paths == {(*path, kind) for path in expected for kind in (TCP, UDP, RTT)}


@pytest.mark.parametrize("chain", [1, 2])
def test_routers_see_no_data_while_bypassed(run: Run, chain: int) -> None:
    assert sum(s.forwarded for s in run.samples if s.bypass and s.chain == chain) <= 2 * chain


@pytest.mark.parametrize("chain", [1, 2])
def test_ttl_is_what_the_routers_leave(run: Run, chain: int) -> None:
    ttls = {s.ttl for s in run.samples if s.kind == UDP and s.chain == chain}
    assert ttls == {(64 - chain, 64 - chain)}


@pytest.mark.parametrize("chain", [1, 2])
def test_traceroute_shows_every_router_while_bypassed(lab: VmLab, run: Run, chain: int) -> None:
    lab.bypass(True)
    assert lab.fsctl.bypassed_hops(chain) == chain
    lab.on(lab.plan.nodeb, way_back(chain))
    out = lab.on(lab.plan.nodea, f"traceroute -n -q 1 -w 2 {destination(chain)}")
    hops = re.findall(r"^ *\d+ +(\S+)", out, re.M)
    assert hops == [*(r.nics[0].address.split("/")[0] for r in lab.plan.routers[:chain]), destination(chain)]


def test_an_agent_that_ends_withdraws_first(lab: VmLab, run: Run) -> None:
    lab.bypass(True)
    lab.bypass(False)
    for chain in SPEC.chains:
        assert lab.fsctl.bypassed_hops(chain) == 0
