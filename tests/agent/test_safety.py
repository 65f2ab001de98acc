"""What is refused, in a real namespace with real nft, tc, ip xfrm, ip rule and sysctls."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fsctl.agent import facts
from fsctl.agent.codec import NLM_F_DUMP_INTR, Message
from fsctl.agent.facts import Inspector
from fsctl.agent.fib import Fold
from fsctl.agent.follow import RESYNC_EVERY_SECONDS, RESYNC_PAUSE_SECONDS, Follower
from fsctl.agent.netlink import Kernel
from fsctl.agent.safety import ALLOWABLE, Judgement, judge
from fsctl.model.addresses import IPV4, IPV6, parse_mac

from . import programs
from .kernel import names
from .netns import KernelOf, Namespace, inside, namespaces, needs_root, veth

KNOWN = {"r0": "eth0", "r1": "eth1"}


@dataclass
class Guest:
    """A router that forwards plainly, with the agent's eyes in it."""

    ns: Namespace
    kernel: Kernel
    follower: Follower
    fold: Fold
    inspector: Inspector

    def judge(self, *allow: str, dump: bool = True) -> Judgement:
        with inside(self.ns.name):
            self.follower.pump()
            if dump:
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
        ns.forwards_plainly(KNOWN)
        ns.sysctl("ipv6/conf/all/forwarding", "1")
        kernel = KernelOf(ns.name)
        with inside(ns.name):
            inspector = Inspector(kernel.requests)
        fold = Fold({parse_mac(ns.mac(i)): name for i, name in KNOWN.items()})
        try:
            made = Guest(ns, kernel, Follower(kernel, fold), fold, inspector)
            made.judge()
            yield made
        finally:
            inspector.close()
            kernel.close()


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


@needs_root
def test_hazard_07_a_default_policy_that_blocks(guest: Guest) -> None:
    guest.ns.ip("xfrm policy setdefault fwd block", check=False)
    if "fwd: block" not in guest.ns.ip("xfrm policy getdefault", check=False):
        pytest.skip("this kernel has no IPsec default policies")
    assert guest.told()
    assert names(guest.judge()) == {("xfrm", 4, "", "both"), ("xfrm", 6, "", "both")}
    guest.ns.ip("xfrm policy setdefault fwd accept")
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


@needs_root
@pytest.mark.skipif(not shutil.which("iptables-legacy"), reason="no iptables-legacy")
def test_hazard_08_the_older_iptables(guest: Guest) -> None:
    def do(version: int, words: str) -> None:
        guest.ns.run(f"ip{'6' * (version == IPV6)}tables-legacy {words}", check=False)

    for version, table in ((IPV4, "ip_tables_names"), (IPV6, "ip6_tables_names")):
        for words in ("-N mine", "-A mine -d ::/0" if version == IPV6 else "-A mine -d 10.0.0.0/8", "-P INPUT DROP"):
            do(version, words)
        if "filter" not in guest.ns.run(f"cat /proc/net/{table}", check=False):
            pytest.skip("this kernel has no older iptables")
        assert names(guest.judge()) == set(), "no rule that forwarded packets meet"
        do(version, "-A FORWARD -j mine")
        do(version, "-A FORWARD -j mine")
        assert names(guest.judge()) == {("firewall", version, "", "both")}
        assert "FORWARD (hook forward): 2 rules" in str(guest.judge().refused)
        do(version, "-F FORWARD")
        do(version, "-P FORWARD DROP")
        assert "FORWARD (hook forward): policy drop" in str(guest.judge().refused)
        do(version, "-P FORWARD ACCEPT")
    guest.ns.run("iptables-legacy -t nat -A POSTROUTING -j MASQUERADE", check=False)
    assert names(guest.judge()) <= {("nat", 4, "", "both")}


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
@pytest.mark.parametrize(
    ("kind", "direction"), [(programs.XDP, "in"), (programs.TCX_INGRESS, "in"), (programs.TCX_EGRESS, "out")]
)
def test_hazard_09_bpf_programs_that_no_message_tells_of(guest: Guest, kind: tuple[int, int, int], direction: str) -> None:
    with inside(guest.ns.name), programs.attached(kind, guest.index("r0")):
        assert names(guest.judge(dump=False)) == {("xdp", v, "eth0", direction) for v in (4, 6)}
        assert names(guest.judge("xdp", dump=False)) == set()
    assert names(guest.judge(dump=False)) == set()


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
    guest.ns.ip("rule flush")
    guest.ns.ip("rule del pref 0")
    assert names(guest.judge()) == {("rules", v, "", "both") for v in (4, 6)}, "nor without any rule"


@needs_root
@pytest.mark.parametrize("version", [4, 6])
def test_fault_C2_rules_that_differ_in_a_selector_only_are_all_counted(guest: Guest, version: int) -> None:
    networks = ("10.7.0.0/16", "10.8.0.0/16") if version == IPV4 else ("fd07::/64", "fd08::/64")
    for network in networks:
        guest.ns.ip(f"-{version} rule add from {network} table 77 priority 100")
    assert names(guest.judge(dump=False)) == {("rules", version, "", "both")}
    guest.ns.ip(f"-{version} rule del from {networks[0]} table 77 priority 100")
    assert guest.told()
    assert names(guest.judge(dump=False)) == {("rules", version, "", "both")}, "the other one is still there"
    guest.ns.ip(f"-{version} rule add fwmark 7 table 77 priority 100")
    guest.ns.ip(f"-{version} rule del from {networks[1]} table 77 priority 100")
    assert names(guest.judge(dump=False)) == {("rules", version, "", "both")}
    guest.ns.ip(f"-{version} rule del fwmark 7 table 77 priority 100")
    assert names(guest.judge(dump=False)) == set()


@needs_root
def test_fault_C3_a_filter_on_the_queue_that_the_kernel_made_by_itself(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """net.core.default_qdisc: the queue's handle is 0:, and `tc filter add dev r1 ...` goes there.

    Few kernels have fq_codel built in, so that two answers of one that has it are played here.
    """
    requests, index, whole = guest.kernel.requests, guest.index("r1"), guest.kernel.requests.dump

    def dump(kind: int, payload: bytes) -> list[Message]:
        asked = struct.unpack_from("=BxxxiIII", payload) if kind in (facts.RTM_GETQDISC, facts.RTM_GETTFILTER) else ()
        if kind == facts.RTM_GETQDISC:
            return [tc_message(facts.RTM_NEWQDISC, index, 0, 0xFFFF_FFFF, b"fq_codel\0")]
        if kind == facts.RTM_GETTFILTER:
            return [tc_message(facts.RTM_NEWTFILTER, index, 0, 0, b"u32\0")] if asked[1:4] == (index, 0, 0) else []
        return whole(kind, payload)

    monkeypatch.setattr(requests, "dump", dump)
    assert names(guest.judge(dump=False)) == {("tc", v, "eth1", "out") for v in (4, 6)}


def tc_message(kind: int, index: int, handle: int, parent: int, name: bytes) -> Message:
    attribute = struct.pack("=HH", 4 + len(name), 1) + name.ljust(-(-len(name) // 4) * 4, b"\0")
    return Message(kind, 0, 0, memoryview(struct.pack("=BxxxiIII", 0, index, handle, parent, 0) + attribute))


@needs_root
def test_forwarding_off_cannot_be_allowed(guest: Guest) -> None:
    guest.ns.sysctl("ipv4/conf/r0/forwarding", "0")
    assert guest.told()
    assert names(guest.judge(*ALLOWABLE)) == {("forwarding", 4, "eth0", "in")}
    guest.ns.sysctl("ipv4/ip_forward", "0")
    guest.ns.sysctl("ipv6/conf/all/forwarding", "0")
    assert names(guest.judge()) == {("forwarding", v, i, "in") for v in (4, 6) for i in KNOWN.values()}


@needs_root
def test_an_interface_without_ipv6_brings_none_in(guest: Guest) -> None:
    guest.ns.sysctl("ipv6/conf/r0/disable_ipv6", "1")
    assert names(guest.judge()) == {("forwarding", 6, "eth0", "in")}
    guest.ns.sysctl("ipv6/conf/r0/disable_ipv6", "0")
    assert names(guest.judge()) == set()
    guest.ns.ip("link set r0 mtu 1000")  # too little for IPv6: the kernel takes it off the interface
    assert names(guest.judge()) == {("forwarding", 6, "eth0", "in")}


@needs_root
def test_hazard_04_an_ipv6_mtu_below_the_links(guest: Guest) -> None:
    guest.ns.sysctl("ipv6/conf/r1/mtu", "1400")
    assert names(guest.judge()) == {("mtu", 6, "eth1", "out")}
    assert names(guest.judge("mtu")) == set()
    guest.ns.ip("link set r1 mtu 1400")
    assert names(guest.judge()) == set()


@needs_root
def test_hazard_19_reverse_path_filters(guest: Guest) -> None:
    guest.ns.sysctl("ipv4/conf/all/rp_filter", "1")
    strict = guest.judge()
    assert names(strict) == {("rp_filter", 4, "eth0", "in"), ("rp_filter", 4, "eth1", "in")}
    assert names(guest.judge("rp_filter")) == set()
    guest.ns.sysctl("ipv4/conf/all/rp_filter", "0")
    guest.ns.sysctl("ipv4/conf/r1/rp_filter", "1")
    found = guest.judge()
    assert names(found) == {("rp_filter", 4, "eth1", "in")}
    assert any("one-way" in note and "eth1" in note for note in found.notes), "one-way bypass is flagged"


@needs_root
def test_fault_F7_a_loose_reverse_path_filter_is_refused_where_it_drops_anything(guest: Guest) -> None:
    guest.ns.sysctl("ipv4/conf/r0/rp_filter", "2")
    assert "there is no default route" in str(guest.judge().refused)
    guest.ns.ip("route add default via 10.0.1.9")
    assert names(guest.judge()) == set(), "every source has a route: it drops none"
    for kind in ("blackhole", "unreachable", "prohibit", "throw"):
        guest.ns.ip(f"route add {kind} 10.66.0.0/16")
        assert f"10.66.0.0/16 is {kind}" in str(guest.judge().refused)
        assert names(guest.judge()) == {("rp_filter", 4, "eth0", "in")}
        guest.ns.ip(f"route del {kind} 10.66.0.0/16")
    guest.ns.ip("addr flush dev r0")
    assert "has no IPv4 address" in str(guest.judge().refused)
    guest.ns.sysctl("ipv4/conf/r0/rp_filter", "0")
    assert names(guest.judge()) == set()


@needs_root
def test_hazard_04_learned_path_mtus(guest: Guest) -> None:
    assert names(guest.judge()) == set()
    guest.ns.sysctl("ipv4/ip_forward_use_pmtu", "1")
    assert names(guest.judge()) == {("mtu", 4, "", "both")}
    assert names(guest.judge("mtu")) == set()


@needs_root
def test_hazard_23_a_dump_that_changes_tore_is_taken_again(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is used, since tables that never rest must be followed too, and another is wanted at once."""
    requests, whole = guest.kernel.requests, guest.kernel.requests._dump

    def torn(kind: int, payload: bytes) -> Iterator[Message]:
        return (m._replace(flags=m.flags | NLM_F_DUMP_INTR) for m in whole(kind, payload))

    with inside(guest.ns.name):
        guest.follower.resync(0.0)
        assert guest.follower.due() == RESYNC_EVERY_SECONDS
        with monkeypatch.context() as changing:
            changing.setattr(requests, "_dump", torn)
            guest.follower.resync(1.0)
        assert guest.fold.state.links
        guest.follower.pump()
        assert guest.follower.due() == 1.0 + RESYNC_PAUSE_SECONDS
        guest.follower.resync(2.0)
        guest.follower.pump()
        assert guest.follower.due() == 2.0 + RESYNC_EVERY_SECONDS
