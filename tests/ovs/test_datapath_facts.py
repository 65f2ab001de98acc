"""What the pipeline rests on: facts about Open vSwitch, each shown by ofproto/trace or by a packet.

a --1 br-a 2-- r1          r2 --2 br-b 1-- b
         100 ===== patch ===== 100
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from ovs_wire import Wire

from fsctl.model.addresses import format_mac
from fsctl.openflow import FlowDecoder, flow_mod, requests
from fsctl.openflow.rules import (
    LINK_MARK,
    Action,
    CheckLarger,
    DecTtl,
    Field,
    GotoTable,
    Learn,
    Normal,
    Output,
    Resubmit,
    Rule,
    RuleChange,
    RuleKey,
    SetField,
)
from tests.waiting import eventually
from topologies.sandbox import Sandbox

pytestmark = pytest.mark.ovs

A, R1, R2, B, C = 0x0200_0000_0A01, 0x0200_0000_0101, 0x0200_0000_0102, 0x0200_0000_0B01, 0x0200_0000_0C01
IP = Field("eth_type", 0x0800)
NORMAL: tuple[Action, ...] = (Normal(),)
PATCH = 100
CHAIN: tuple[Action, ...] = (DecTtl(3), SetField("eth_src", R2), SetField("eth_dst", B),
                             SetField("pkt_mark", LINK_MARK), Output(PATCH))  # fmt: skip
MTU_FRAME = 1014
BEYOND = "10.0.2.5"


class Pair:
    """Two bridges, and which datapath port is which."""

    def __init__(self, ovs: Sandbox) -> None:
        self.ovs = ovs
        ovs.add_bridge("br-a", ports=3)
        ovs.add_bridge("br-b", ports=3)
        ovs.add_patch("br-a", "br-b", PATCH)
        self.datapath_port = dict(re.findall(r"^\s+(\S+) \d+/(\d+):", ovs.appctl("dpif/show"), re.MULTILINE))
        deliver = (SetField("pkt_mark", 0), SetField("in_port", 2), GotoTable(7))
        marked = (Field("eth_src", R2), Field("pkt_mark", LINK_MARK))
        self.install("br-b", *bridging(), Rule(RuleKey(0, 65535, (Field("in_port", PATCH),)), (GotoTable(2),)),
                     Rule(RuleKey(2, 10, marked), deliver))  # fmt: skip

    def install(self, bridge: str, *rules: Rule) -> None:
        with Wire(self.ovs.management(bridge)) as wire:
            for rule in rules:
                wire.send(flow_mod(RuleChange(rule.key, rule.actions), next(wire.xids)))
            assert wire.errors() == {}

    def send(self, bridge: str, port: int, src: int, dst: int, ip_dst: str = "192.0.2.1", vid: int | None = None) -> None:
        """A UDP packet arrives."""
        ip = f"eth_type(0x0800),ipv4(src=10.0.1.1,dst={ip_dst},proto=17,ttl=64,frag=no),udp(src=1,dst=2)"
        inner = ip if vid is None else f"eth_type(0x8100),vlan(vid={vid},pcp=0),encap({ip})"
        text = f"in_port({port}),eth(src={format_mac(src)},dst={format_mac(dst)}),{inner}"
        self.ovs.appctl("netdev-dummy/receive", f"{bridge}-p{port}", text)
        time.sleep(0.1)

    def meet(self) -> None:
        """Everybody has been heard once, so the bridges know them."""
        self.send("br-a", 1, A, R1)
        self.send("br-a", 2, R1, A)
        self.send("br-b", 1, B, R2)

    def trace(self, bridge: str = "br-a", ttl: int = 64, **fields: str) -> str:
        """The datapath actions for a packet of A's."""
        flow = {"dl_src": format_mac(A), "dl_dst": format_mac(R1), "nw_src": "10.0.1.1", "nw_dst": BEYOND,
                "nw_ttl": str(ttl), "nw_proto": "17", "in_port": "1"} | fields  # fmt: skip
        text = self.ovs.appctl("ofproto/trace", bridge, "ip," + ",".join(f"{k}={v}" for k, v in flow.items()))
        return text.rpartition("Datapath actions: ")[2].strip()

    def sent(self, bridge: str) -> dict[str, int]:
        """Packets that left by each port."""
        found = re.findall(r"port\s+(\w+): rx pkts=\d+.*?tx pkts=(\d+)", self.ovs.ofctl("dump-ports", bridge), re.DOTALL)
        return {port: int(count) for port, count in found}

    def learned(self, bridge: str) -> dict[str, str]:
        """MAC -> port, as fsctl's own table has learned it."""
        shown = self.ovs.ofctl("dump-flows", bridge, "table=7", "--no-names")
        return dict(re.findall(r"priority=10,dl_dst=(\S+) actions=output:(\d+|LOCAL)", shown))


def bridging(limit: int = 100, age_s: int = 60) -> tuple[Rule, ...]:
    """Everybody is learned, and bridged to where he was seen; as fsctl does it (docs/pipeline.md)."""
    learning = (Rule(RuleKey(8, 10, (Field("in_port", n),)), (Learn(n, age_s, limit),)) for n in (1, 2, 3))
    return (Rule(RuleKey(0, 1, ()), (Resubmit(8), GotoTable(7))), Rule(RuleKey(7, 1, ()), NORMAL), *learning)


@pytest.fixture
def pair(ovs: Sandbox) -> Iterator[Pair]:
    try:
        yield Pair(ovs)
    finally:
        ovs.del_bridge("br-a")
        ovs.del_bridge("br-b")


def entry(*actions: Action) -> tuple[Rule, ...]:
    """Guard and one flow switch rule."""
    match = (Field("eth_dst", R1), IP)
    return (*bridging(), Rule(RuleKey(0, 3, match), (Resubmit(8), GotoTable(1))), Rule(RuleKey(1, 0, ()), (GotoTable(7),)),
            Rule(RuleKey(1, 1048, (*match, Field("ipv4_dst", 0x0A00_0200, 0xFFFF_FF00))), actions))  # fmt: skip


REWRITE = f"set(eth(src={format_mac(R2)},dst={format_mac(B)}))"
BY_WAY = entry(SetField("reg1", 7), GotoTable(3))


def effect(*actions: Action, table: int = 3) -> Rule:
    return Rule(RuleKey(table, 10, (IP, Field("reg1", 7))), actions)


def install_chain(pair: Pair) -> None:
    pair.install("br-a", *BY_WAY, effect(*CHAIN))


def test_one_lookup_does_the_whole_chain_and_crosses_to_the_peer_bridge(pair: Pair) -> None:
    install_chain(pair)
    pair.meet()
    assert pair.trace() == f"{REWRITE},set(ipv4(ttl=61)),{pair.datapath_port['br-b-p1']}"


def test_a_group_bucket_is_an_action_set(pair: Pair) -> None:
    """Why ways are rules and not groups (docs/decisions/0001-ways.md).

    Of three dec_ttl one is done, check_pkt_larger not at all, without a word.
    """
    pair.ovs.ofctl("add-group", "br-a", "group_id=5,type=indirect,bucket=actions=check_pkt_larger(1000)->NXM_NX_REG0[0],"
                   "dec_ttl,dec_ttl,dec_ttl,output:3")  # fmt: skip
    pair.ovs.ofctl("add-flow", "br-a", "actions=group:5")
    assert "check_pkt_larger(1000)->NXM_NX_REG0[0],dec_ttl,dec_ttl,dec_ttl" in pair.ovs.ofctl("dump-groups", "br-a")
    assert pair.trace() == f"set(ipv4(ttl=63)),{pair.datapath_port['br-a-p3']}"


def test_too_long_goes_to_the_router_and_the_rest_down_the_chain(pair: Pair) -> None:
    pair.install("br-a", *BY_WAY, effect(CheckLarger(MTU_FRAME), GotoTable(4)), effect(*CHAIN, table=4),
                 Rule(RuleKey(4, 20, (Field("reg0", 1, 1),)), (GotoTable(7),)))  # fmt: skip
    pair.meet()
    router, host = pair.datapath_port["br-a-p2"], pair.datapath_port["br-b-p1"]
    assert pair.trace() == f"check_pkt_len(size={MTU_FRAME},gt({router}),le({REWRITE},set(ipv4(ttl=61)),{host}))"


def test_a_ttl_too_small_for_the_chain_reaches_nobody(pair: Pair) -> None:
    """Why the guard: OVS stops at the dec_ttl that would give 0, and punts."""
    install_chain(pair)
    pair.meet()
    assert "userspace" in pair.trace(ttl=3)
    assert pair.datapath_port["br-b-p1"] not in pair.trace(ttl=3).split(",")


def test_one_datapath_flow_without_a_copy_and_the_mark_leaves_no_trace(pair: Pair) -> None:
    install_chain(pair)
    pair.meet()
    pair.send("br-a", 1, A, R1, BEYOND)
    flows = [line for line in pair.ovs.appctl("dpctl/dump-flows").splitlines() if "set(eth" in line]
    assert len(flows) == 1
    assert flows[0].split("actions:")[1] == f"{REWRITE},set(ipv4(ttl=61)),{pair.datapath_port['br-b-p1']}"


def test_a_bypassed_sender_is_learned_and_nobody_gets_a_copy(pair: Pair) -> None:
    install_chain(pair)
    pair.send("br-b", 1, B, R2)
    before = pair.sent("br-a")
    pair.send("br-a", 1, A, R1, BEYOND)
    after = pair.sent("br-a")
    assert pair.learned("br-a") == {format_mac(A): "1"}
    assert {port: after[port] - before[port] for port in after} == {"LOCAL": 0, "1": 0, "2": 0, "3": 0, "100": 1}


def test_what_is_for_a_learned_sender_is_not_flooded_when_the_bridge_has_forgotten_him(pair: Pair) -> None:
    install_chain(pair)
    pair.send("br-a", 1, A, R1, BEYOND)
    pair.ovs.appctl("fdb/flush", "br-a")
    before = pair.sent("br-a")
    pair.send("br-a", 2, R1, A)
    after = pair.sent("br-a")
    assert {port: after[port] - before[port] for port in after} == {"LOCAL": 0, "1": 1, "2": 0, "3": 0, "100": 0}


def test_a_sender_that_moves_is_found_at_once(pair: Pair) -> None:
    """By any frame, a broadcast too."""
    install_chain(pair)
    pair.send("br-a", 1, A, R1, BEYOND)
    pair.send("br-a", 3, A, 0xFFFF_FFFF_FFFF)
    assert pair.learned("br-a") == {format_mac(A): "3"}
    before = pair.sent("br-a")
    pair.send("br-a", 2, R1, A)
    assert pair.sent("br-a")["3"] - before["3"] == 1
    assert pair.sent("br-a")["1"] == before["1"]


def test_learned_senders_stay_while_their_traffic_goes_on_and_go_after_it(pair: Pair) -> None:
    install_chain(pair)
    pair.install("br-a", *bridging(age_s=2))
    for _ in range(8):
        pair.send("br-a", 1, A, R1, BEYOND)
        time.sleep(0.4)
    assert pair.learned("br-a") == {format_mac(A): "1"}, "after 4 s, all in one datapath flow"
    eventually(lambda: not pair.learned("br-a"))


def test_the_limit_counts_one_ports_senders(pair: Pair) -> None:
    pair.install("br-a", *bridging(limit=2))
    for n in range(4):
        pair.send("br-a", 1, A + n, R1)
        pair.send("br-a", 3, B + n, R1)
    expected = {format_mac(A): "1", format_mac(A + 1): "1", format_mac(B): "3", format_mac(B + 1): "3"}
    assert pair.learned("br-a") == expected


def test_what_was_learned_at_a_port_goes_with_its_rule_and_stays_when_that_changes(pair: Pair) -> None:
    pair.install("br-a", *bridging())
    pair.send("br-a", 1, A, R1)
    pair.send("br-a", 3, B, R1)
    changed = bridging(limit=50)
    with Wire(pair.ovs.management("br-a")) as wire:
        for rule in changed:
            wire.send(flow_mod(RuleChange(rule.key, rule.actions, False), next(wire.xids)))
        assert wire.errors() == {}
        assert pair.learned("br-a") == {format_mac(A): "1", format_mac(B): "3"}
        wire.send(flow_mod(RuleChange(RuleKey(8, 10, (Field("in_port", 1),)), None, False), next(wire.xids)))
        assert wire.errors() == {}
    assert pair.learned("br-a") == {format_mac(B): "3"}


def test_with_another_age_everything_is_learned_anew(pair: Pair) -> None:
    """A refreshed rule keeps its old timeout."""
    pair.install("br-a", *bridging(age_s=60))
    pair.send("br-a", 1, A, R1)
    with Wire(pair.ovs.management("br-a")) as wire:
        for rule in bridging(age_s=15):
            wire.send(flow_mod(RuleChange(rule.key, rule.actions, False), next(wire.xids)))
        assert wire.errors() == {}
    assert pair.learned("br-a") == {}
    pair.send("br-a", 1, A, R1)
    assert "hard_timeout=15" in pair.ovs.ofctl("dump-flows", "br-a", f"table=7,dl_dst={format_mac(A)}")


def test_what_was_learned_is_not_dumped_with_fsctls_rules(pair: Pair) -> None:
    pair.install("br-a", *bridging())
    pair.send("br-a", 1, A, R1)
    with Wire(pair.ovs.management("br-a")) as wire:
        for only_ours, learned in ((True, 0), (False, 1)):
            decoder = FlowDecoder()
            for body in wire.ask(requests.flow_stats(next(wire.xids), only_ours=only_ours)):
                decoder.feed(body)
            assert decoder.dump.learned == learned
            assert decoder.dump.rules == {r.key: r.actions for r in bridging()}


def test_normal_never_floods_into_a_link_and_output_still_uses_it(pair: Pair) -> None:
    """tag=4095 on patch ports."""
    install_chain(pair)
    pair.send("br-b", 1, B, R2)
    pair.send("br-a", 1, A, 0xFFFF_FFFF_FFFF)
    assert pair.sent("br-a") == {"LOCAL": 1, "1": 0, "2": 1, "3": 1, "100": 0}
    pair.send("br-a", 1, A, R1, BEYOND)
    assert pair.sent("br-a")["100"] == 1


def test_a_frame_of_the_reserved_vlan_floods_into_links_and_gets_no_further(pair: Pair) -> None:
    """Why table 2 asks for the mark: the tag of a patch port is one that a guest can send."""
    install_chain(pair)
    pair.send("br-b", 1, B, R2)
    before = pair.sent("br-b")
    pair.send("br-a", 1, R2, 0xFFFF_FFFF_FFFF, vid=4095)
    assert pair.sent("br-a")["100"] == 1, "NORMAL floods it into the patch port; fsctl's guard drops it before"
    assert pair.sent("br-b") == before
    pair.install("br-a", Rule(RuleKey(0, 9, (Field("vlan_tci", 0x1FFF),))))
    pair.send("br-a", 1, R2, 0xFFFF_FFFF_FFFF, vid=4095)
    assert pair.sent("br-a")["100"] == 1


def test_a_foreign_rule_of_usual_priority_lets_nothing_off_a_link(pair: Pair) -> None:
    install_chain(pair)
    pair.send("br-b", 1, B, R2)
    for bridge in ("br-a", "br-b"):
        pair.ovs.ofctl("add-flow", bridge, "priority=32768,actions=NORMAL")
    before = pair.sent("br-b")
    pair.send("br-a", 1, R2, 0xFFFF_FFFF_FFFF, vid=4095)
    assert pair.sent("br-b") == before


def test_an_unknown_destination_behind_the_chain_is_flooded_there_but_not_back(pair: Pair) -> None:
    install_chain(pair)
    pair.send("br-a", 1, A, R1, BEYOND)
    assert pair.sent("br-b") == {"LOCAL": 1, "1": 1, "2": 0, "3": 1, "100": 0}


def both_speak(pair: Pair) -> None:
    """A and C (port 3 of br-a) send each other frames, so that the switch has learned both."""
    pair.install("br-a", *bridging())
    for _ in range(2):
        pair.send("br-a", 1, A, C)
        pair.send("br-a", 3, C, A)


def arrivals(pair: Pair, port: int, src: int, dst: int) -> set[str]:
    """The ports that a frame leaves by."""
    before = pair.sent("br-a")
    pair.send("br-a", port, src, dst)
    after = pair.sent("br-a")
    return {name for name in after if after[name] > before[name]}


def test_limit_who_gives_a_part_of_the_traffic_to_NORMAL_may_see_it_flooded(pair: Pair) -> None:
    """docs/limits.md: frames that find their receiver in table 7 do not refresh the bridge's own table."""
    both_speak(pair)
    pair.ovs.appctl("fdb/flush", "br-a")  # as if mac-aging-time had gone by
    assert arrivals(pair, 1, A, C) == {"3"}
    pair.ovs.ofctl("add-flow", "br-a", "priority=100,udp,actions=NORMAL")
    assert arrivals(pair, 1, A, C) == {"2", "3", "LOCAL"}
    assert arrivals(pair, 3, C, A) == {"1"}, "an answer that goes the same way ends it"
    assert arrivals(pair, 1, A, C) == {"3"}
    pair.ovs.appctl("fdb/flush", "br-a")
    pair.ovs.ofctl("mod-flows", "br-a", "udp,actions=resubmit(,8),goto_table:7")
    assert arrivals(pair, 1, A, C) == {"3"}, "the way out"


def test_limit_a_static_entry_gives_way_to_where_its_address_was_seen(pair: Pair) -> None:
    """docs/limits.md: attached-mac pins an address in table 7, and so does a rule of somebody else."""
    both_speak(pair)
    pair.ovs.appctl("fdb/add", "br-a", "br-a-p2", "0", format_mac(A))
    assert arrivals(pair, 3, C, A) == {"1"}
    pair.install("br-a", Rule(RuleKey(7, 20, (Field("eth_dst", A),)), (Output(2),)))
    assert arrivals(pair, 3, C, A) == {"2"}
