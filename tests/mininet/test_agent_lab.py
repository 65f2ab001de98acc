"""fsctl-agent in a router of the lab: what its kernel routes is bypassed, for as long as the agent says so.

r1's routes are static, and nobody delegates for it: A --- r1 --- gw --- B, where gw is not fsctl's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from packets import caught, forwarded

from topologies.agents import Agent
from topologies.lab import Lab
from topologies.plan import RoutedTopo
from topologies.topos import Uplink
from topologies.watch import wait_for

BOTH = pytest.mark.parametrize("version", [4, 6])
LEASE_S = 2
BYPASSED = {"10.0.2.0/24", "10.0.1.254/32", "fd00:0:0:2::/64", "fd00:0:0:1::fe/128"}
"""B's subnet by the static route, the gateway as a neighbour."""


@pytest.fixture(scope="module")
def lab(start_lab: Callable[[RoutedTopo], Lab]) -> Lab:
    return start_lab(Uplink())


@pytest.fixture
def agent(lab: Lab) -> Iterator[Agent]:
    """r1's agent, once it has delegated."""
    agent = Agent(lab, "r1", "--lease", str(LEASE_S))
    agent.start()
    try:
        wait_for(f"r1 delegates; its agent says: {agent.said()}", lambda: installed(lab) >= BYPASSED)
        yield agent
    finally:
        agent.stop()


def router(lab: Lab) -> dict[str, Any]:
    assert lab.control is not None
    return lab.control.client.router("r1")


def flows(lab: Lab) -> list[dict[str, Any]]:
    assert lab.control is not None
    return lab.control.client.flows("r1", "installed")


def installed(lab: Lab) -> set[str]:
    """The destinations that packets from A are bypassed to."""
    matches = [f["match"] for f in flows(lab) if f["match"]["in"] == "eth0"]
    return {str(value) for match in matches for key, value in match.items() if key in ("ipv4_dst", "ipv6_dst")}


def check(lab: Lab, version: int, bypassed: bool) -> None:
    """One packet from A to B: its TTL says two routers, r1's own count says whether r1 was one of them."""
    before = forwarded(lab, "r1")
    frame = caught(lab, "a", "b", version)
    assert frame is not None, "lost"
    assert frame.ttl == 64 - 2
    assert frame.checksum_ok
    assert (forwarded(lab, "r1") == before) is bypassed


@BOTH
def test_what_the_kernel_routes_is_bypassed(lab: Lab, agent: Agent, version: int) -> None:
    assert {f["match"]["in"] for f in flows(lab)} == {"eth0", "eth1"}
    check(lab, version, bypassed=True)


def test_a_route_that_goes_takes_its_delegation_along(lab: Lab, agent: Agent) -> None:
    lab["r1"].execute("ip", "route", "del", "10.0.2.0/24")
    wait_for("withdrawn", lambda: "10.0.2.0/24" not in installed(lab))
    lab["r1"].execute("ip", "route", "add", "10.0.2.0/24", "via", "10.0.1.254")
    wait_for("delegated again", lambda: installed(lab) >= BYPASSED)
    check(lab, 4, bypassed=True)


def test_hazard_30_the_lease_of_an_agent_that_died_runs_out(lab: Lab, agent: Agent) -> None:
    agent.kill()
    assert router(lab)["session"] is not None
    wait_for("the lease is over", lambda: router(lab)["flows"] == 0)
    check(lab, 4, bypassed=False)
    check(lab, 6, bypassed=False)


def test_an_agent_that_ends_withdraws_first(lab: Lab, agent: Agent) -> None:
    agent.stop()
    assert router(lab)["flows"] == 0
    assert router(lab)["session"] is None
    check(lab, 4, bypassed=False)


def test_a_second_agent_is_refused(lab: Lab, agent: Agent) -> None:
    first = router(lab)["session"]["id"]
    second = Agent(lab, "r1", "--lease", str(LEASE_S), name="second")
    second.start()
    try:
        wait_for("it is told so", lambda: "another agent holds this router" in second.said())
        assert second.is_running
    finally:
        second.stop()
    assert router(lab)["session"]["id"] == first
    check(lab, 4, bypassed=True)


@pytest.mark.skipif(shutil.which("nft") is None, reason="not installed: nft")
def test_hazard_8_a_firewall_rule_ends_the_bypass(lab: Lab, agent: Agent) -> None:
    chain = "chain forward {\ntype filter hook forward priority filter; policy accept;\nudp dport 9 drop\n}\n"
    lab["r1"].execute("nft", "-f", "-", stdin=f"table inet test {{\n{chain}}}\n")
    try:
        wait_for("withdrawn", lambda: router(lab)["flows"] == 0)
        reasons = [r for r in router(lab)["not_bypassed"] if r["name"] == "firewall"]
        assert reasons
        assert all("test forward" in r["reason"] for r in reasons)
        check(lab, 4, bypassed=False)
        check(lab, 6, bypassed=False)
    finally:
        lab["r1"].execute("nft", "delete", "table", "inet", "test")
    wait_for("delegated again", lambda: installed(lab) >= BYPASSED)
    check(lab, 4, bypassed=True)
