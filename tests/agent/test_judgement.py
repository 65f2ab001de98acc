"""What is refused, judged on facts and events that were made up."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from fsctl.agent import facts, runner
from fsctl.agent.events import Event, Nexthop
from fsctl.agent.safety import DEFAULT_RULES, Chain, Facts, InterfaceFacts, Judgement, Refusal, judge, unrouted_sources
from fsctl.model.addresses import IPV4

from .kernel import ETH0, ETH1, NAMES, base, folded, leg, link, names, route


def judged(chains: tuple[Chain, ...] = (), allow: tuple[str, ...] = (), **interface: object) -> Judgement:
    rules = tuple(rule for version in DEFAULT_RULES.values() for rule in version)
    found = Facts({ETH0: InterfaceFacts(**interface), ETH1: InterfaceFacts()}, chains, rules=rules)  # type: ignore[arg-type]
    return judge(found, folded(base()).state, NAMES, allow)


def test_hazard_08_a_chain_may_be_bound_to_a_pattern_of_names() -> None:
    def bound_to(*devices: str) -> set[str]:
        found = judged((Chain((), "nftables d in", "ingress", rules=1, devices=devices),))
        return {r.interface for r in found.refused}

    assert bound_to("ens2") == {"eth0"}
    assert bound_to("ens*") == {"eth0", "eth1"}
    assert bound_to("eth*", "*") == {"eth0", "eth1"}
    assert bound_to("eth*", "ens") == set()


def test_hazard_08_a_load_balancer_is_nat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ip_vs"
    monkeypatch.setattr(facts, "IPVS", file)
    assert list(facts.ipvs()) == []
    head = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port\n"
    file.write_text(head)
    assert list(facts.ipvs()) == []
    file.write_text(head + "TCP  C0000201:0050 rr\n  -> 0A000109:0050      Masq    1      0          0\n")
    assert names(judged(tuple(facts.ipvs()))) == {("nat", v, "", "both") for v in (4, 6)}


def test_fault_F7_a_default_route_that_leads_nowhere_is_none() -> None:
    def gap(*events: Event) -> str:
        return unrouted_sources(folded([*base(), *events]).state)

    default = route("0.0.0.0/0", leg(ETH1, "10.0.1.9"))
    assert gap(Event(default)) == ""
    assert gap() == gap(Event(replace(default, tos=4))) == "there is no default route"
    assert gap(Event(route("0.0.0.0/0", leg(ETH1, "10.0.1.9", dead=True)))) == "there is no default route"
    assert gap(Event(default), Event(link(ETH1, up=False))) == "there is no default route"
    by_object = replace(default, legs=(), nhid=7)
    assert gap(Event(by_object)) == "there is no default route"
    assert gap(Event(by_object), Event(Nexthop(7, leg(ETH1, "10.0.1.9")))) == ""
    assert gap(Event(by_object), Event(Nexthop(7, group=(8,))), Event(Nexthop(8, leg(ETH1, "10.0.1.9")))) == ""
    assert gap(Event(default), Event(Nexthop(9, blackhole=True))) == "a next-hop object is a blackhole"


def test_hazard_08_a_router_wide_refusal_leaves_nothing() -> None:
    firewall = Chain((IPV4,), "nftables filter forward", "forward", rules=3)
    policy = judged((firewall,)).policy
    assert policy.no_ingress == policy.no_egress == {(ETH0, IPV4), (ETH1, IPV4)}
    assert list(folded(base(), policy).delegations()) == []


def test_hazard_09_xdp_and_filters_are_scoped_by_direction() -> None:
    assert judged(filters_out=("tc filter u32",)).refused == tuple(
        Refusal("tc", "tc filter u32", v, "eth0", "out") for v in (4, 6)
    )
    assert judged(filters_in=("tcx program",), allow=("xdp",)).refused == ()


def test_hazard_09_a_fair_queue_with_a_limit_is_a_shaper() -> None:
    """sch_fq's dump: TCA_KIND, and among TCA_OPTIONS the rate that a flow may have; all ones is no limit."""

    def queue(rate: int) -> str:
        options = struct.pack("=HHIHHI", 8, 1, 10_000, 8, 7, rate)
        return facts.read_qdisc({1: memoryview(b"fq\0"), 2: memoryview(options)})

    assert (queue(0xFFFF_FFFF), queue(125_000)) == ("fq", "fq maxrate")
    assert judged(qdiscs=("fq",)).refused == ()
    assert judged(qdiscs=("fq maxrate",)).refused == tuple(Refusal("tc", "qdisc fq maxrate", v, "eth0", "out") for v in (4, 6))


def test_a_refusal_tells_where_and_why() -> None:
    text = str(judged((Chain((IPV4,), "nftables filter forward", "forward", rules=3),)).refused[0])
    assert text == "the whole router, IPv4: nftables filter forward (hook forward): 3 rules [firewall]"


def test_fault_C9_what_is_told_by_nobody_is_looked_for_every_second() -> None:
    """The older iptables, XDP and tcx programs, sysctls: found after 4.2 to 5 s."""
    assert runner.LOOK_EVERY_SECONDS <= 1.0
