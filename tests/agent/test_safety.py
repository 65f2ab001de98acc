"""What is refused, in a real namespace with real nft, tc, ip xfrm, ip rule and sysctls."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fsctl.agent.facts import Inspector, read_legacy
from fsctl.agent.fib import Fold
from fsctl.agent.follow import Follower
from fsctl.agent.netlink import Kernel
from fsctl.agent.safety import ALLOWABLE, Chain, Facts, InterfaceFacts, Judgement, Refusal, judge
from fsctl.model import IPV4, IPV6, parse_mac

from .kernel import ETH0, ETH1, NAMES, base, folded
from .netns import Namespace, inside, namespaces, needs_root, veth

KNOWN = {"r0": "eth0", "r1": "eth1"}


@dataclass
class Guest:
    """A router that forwards plainly, with the agent's eyes in it."""

    ns: Namespace
    kernel: Kernel
    follower: Follower
    fold: Fold
    inspector: Inspector

    def judge(self, *allow: str) -> Judgement:
        with inside(self.ns.name):
            self.follower.pump()
            self.follower.resync(0.0)
            self.fold.settle()
            names = dict(self.fold.names())
            return judge(self.inspector.look({i: self.fold.state.links[i] for i in names}), self.fold.state, names, allow)

    def told(self) -> bool:
        """Has the kernel said that something about the policy changed?"""
        return self.follower.pump()

    def index(self, interface: str) -> int:
        found: int = self.ns.json(f"link show dev {interface}")[0]["ifindex"]
        return found


@pytest.fixture
def guest() -> Iterator[Guest]:
    with namespaces("s", "t") as (ns, peers):
        for n, i in enumerate(KNOWN):
            veth(ns, i, peers, f"p{i}")
            ns.ip(f"addr add 10.0.{n}.1/24 dev {i}")
            ns.sysctl(f"ipv4/conf/{i}/rp_filter", "0")
            ns.sysctl(f"ipv4/conf/{i}/send_redirects", "0")
        ns.sysctl("ipv4/conf/all/rp_filter", "0")
        ns.sysctl("ipv4/conf/all/send_redirects", "0")
        ns.sysctl("ipv4/ip_forward", "1")
        ns.sysctl("ipv6/conf/all/forwarding", "1")
        with inside(ns.name):
            kernel = Kernel()
            inspector = Inspector(kernel.requests)
        fold = Fold({parse_mac(ns.mac(i)): name for i, name in KNOWN.items()})
        try:
            made = Guest(ns, kernel, Follower(kernel, fold), fold, inspector)
            made.judge()
            yield made
        finally:
            inspector.close()
            kernel.close()


def names(judgement: Judgement) -> set[tuple[str, int, str, str]]:
    """(name, IP version, interface, direction), without the IPv6 redirects that no sysctl turns off."""
    return {(r.name, r.version, r.interface, r.direction) for r in judgement.refused if r.name != "redirects"}


@needs_root
def test_a_plain_router_is_bypassed(guest: Guest) -> None:
    found = guest.judge()
    assert names(found) == set()
    assert not found.policy.no_ingress
    assert not found.policy.no_egress


@needs_root
def test_hazard_06_redirects(guest: Guest) -> None:
    assert {(r.version, r.direction) for r in guest.judge().refused} == {(6, "hairpin")}, "IPv6 always sends them"
    guest.ns.sysctl("ipv4/conf/r0/send_redirects", "1")
    assert guest.judge().policy.no_hairpin >= {(guest.index("r0"), IPV4)}
    assert guest.judge("redirects").policy.no_hairpin == set()


@needs_root
def test_hazard_07_ipsec_policies(guest: Guest) -> None:
    guest.ns.ip("xfrm policy add src 10.8.0.0/16 dst 10.9.0.0/16 dir fwd", check=False)
    if not guest.ns.ip("xfrm policy", check=False):
        pytest.skip("this kernel has no IPsec")
    assert names(guest.judge()) == {("xfrm", 4, "", "both")}
    guest.ns.ip("xfrm policy flush")
    assert guest.told()
    assert names(guest.judge()) == set()


needs_nft = pytest.mark.skipif(not shutil.which("nft"), reason="no nft")


@needs_root
@needs_nft
def test_hazard_08_firewall_rules_and_drop_policies(guest: Guest) -> None:
    guest.ns.run("nft add table inet f")
    guest.ns.run("nft add chain inet f out { type filter hook output priority 0 ; }")
    guest.ns.run("nft add rule inet f out counter")
    guest.ns.run("nft add chain inet f forwarded { type filter hook forward priority 0 ; }")
    assert names(guest.judge()) == set(), "no rule that forwarded packets meet"
    assert guest.follower.pump() is False
    guest.ns.run("nft add rule inet f forwarded tcp dport 22 drop")
    assert guest.told()
    assert names(guest.judge()) == {("firewall", 4, "", "both"), ("firewall", 6, "", "both")}
    assert names(guest.judge("firewall")) == set()
    assert {r.name for r in guest.judge("firewall").overridden} == {"firewall"}
    guest.ns.run("nft flush ruleset")
    guest.ns.run("nft add table ip f")
    guest.ns.run("nft add chain ip f forwarded { type filter hook forward priority 0 ; policy drop ; }")
    assert names(guest.judge()) == {("firewall", 4, "", "both")}


@needs_root
@needs_nft
def test_hazard_08_nat(guest: Guest) -> None:
    guest.ns.run("nft add table ip n")
    guest.ns.run("nft add chain ip n post { type nat hook postrouting priority 100 ; }")
    guest.ns.run("nft add rule ip n post oifname r1 masquerade")
    assert names(guest.judge()) == {("nat", 4, "", "both")}


@needs_root
@needs_nft
def test_hazard_08_an_ingress_chain_concerns_its_device(guest: Guest) -> None:
    guest.ns.run("nft add table netdev d")
    guest.ns.run("nft add chain netdev d in { type filter hook ingress device r0 priority 0 ; }")
    guest.ns.run("nft add rule netdev d in counter")
    found = guest.judge()
    assert names(found) == {("firewall", 4, "eth0", "in"), ("firewall", 6, "eth0", "in")}
    assert found.policy.no_ingress == {(guest.index("r0"), IPV4), (guest.index("r0"), IPV6)}


@needs_root
@pytest.mark.skipif(not shutil.which("iptables-nft"), reason="no iptables-nft")
def test_hazard_08_iptables(guest: Guest) -> None:
    guest.ns.run("iptables-nft -A FORWARD -p tcp --dport 25 -j DROP")
    assert names(guest.judge()) == {("firewall", 4, "", "both")}


def test_hazard_08_legacy_iptables_output() -> None:
    saved = "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:mine - [0:0]\n-A FORWARD -j mine\n-A FORWARD -j LOG\nCOMMIT\n"
    chains = {c.hook: c for c in read_legacy(IPV4, "filter", saved)}
    assert (chains["forward"].rules, chains["forward"].drops) == (2, False)
    assert chains["input"].drops
    assert {r.name for r in judged(chains=tuple(chains.values())).refused} == {"firewall"}


@needs_root
def test_hazard_09_tc(guest: Guest) -> None:
    guest.ns.run("tc qdisc add dev r0 clsact")
    guest.ns.run("tc qdisc replace dev r1 root pfifo")
    assert names(guest.judge()) == set()
    guest.ns.run("tc qdisc replace dev r1 root tbf rate 10mbit burst 10k latency 50ms")
    assert guest.told()
    assert names(guest.judge()) == {("tc", v, "eth1", "out") for v in (4, 6)}
    guest.ns.run("tc qdisc del dev r1 root")
    guest.ns.run("tc filter add dev r0 ingress protocol ip u32 match u32 0 0 flowid 1:1", check=False)
    if "u32" not in guest.ns.run("tc filter show dev r0 ingress"):
        pytest.skip("this kernel has no u32 classifier")
    assert names(guest.judge()) == {("tc", v, "eth0", "in") for v in (4, 6)}


@needs_root
def test_hazard_10_policy_routing(guest: Guest) -> None:
    guest.ns.ip("rule add from 10.7.0.0/16 table 77")
    assert guest.told()
    assert names(guest.judge()) == {("rules", 4, "", "both")}
    guest.ns.ip("rule del from 10.7.0.0/16 table 77")
    guest.ns.ip("-6 rule add fwmark 7 table 77")
    assert names(guest.judge()) == {("rules", 6, "", "both")}
    guest.ns.ip("-6 rule flush")
    assert names(guest.judge()) == {("rules", 6, "", "both")}, "without the default rule for main nothing is as it seems"


@needs_root
def test_forwarding_off_cannot_be_allowed(guest: Guest) -> None:
    guest.ns.sysctl("ipv4/conf/r0/forwarding", "0")
    assert guest.told()
    assert names(guest.judge(*ALLOWABLE)) == {("forwarding", 4, "eth0", "in")}
    guest.ns.sysctl("ipv4/ip_forward", "0")
    guest.ns.sysctl("ipv6/conf/all/forwarding", "0")
    assert names(guest.judge()) == {("forwarding", v, i, "in") for v in (4, 6) for i in KNOWN.values()}


@needs_root
def test_hazard_19_strict_rp_filter_with_asymmetric_routes(guest: Guest) -> None:
    guest.ns.sysctl("ipv4/conf/all/rp_filter", "1")
    symmetric = guest.judge()
    assert names(symmetric) == set()
    assert any("rp_filter is strict" in note for note in symmetric.notes)
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.0.9 metric 1")
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9 metric 2")
    found = guest.judge()
    assert names(found) == {("rp_filter", 4, "eth1", "in")}
    assert any("one-way" in note and "eth1" in note for note in found.notes), "one-way bypass is flagged"
    guest.ns.sysctl("ipv4/conf/all/rp_filter", "2")
    assert names(guest.judge()) == set()


def judged(chains: tuple[Chain, ...] = (), allow: tuple[str, ...] = (), **interface: object) -> Judgement:
    facts = Facts({ETH0: InterfaceFacts(**interface), ETH1: InterfaceFacts()}, chains)  # type: ignore[arg-type]
    return judge(facts, folded(base()).state, NAMES, allow)


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


def test_a_refusal_tells_where_and_why() -> None:
    text = str(judged((Chain((IPV4,), "nftables filter forward", "forward", rules=3),)).refused[0])
    assert text == "the whole router, IPv4: nftables filter forward (hook forward): 3 rules [firewall]"
