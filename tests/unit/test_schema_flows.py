"""Flows as JSON: what goes out comes back, and whatever else comes in is refused by name."""

from __future__ import annotations

import copy
import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsctl.errors import InvalidError
from fsctl.model.addresses import BITS, IPV4, IPV6, Prefix, format_mac, parse_mac
from fsctl.model.delegations import DROP, PUNT, Delegation, FiveTuple, Forward, Match
from fsctl.model.fib import Change, change_of
from fsctl.model.network import Interface, Router
from fsctl.schema.addresses import key_of_text, prefix_key
from fsctl.schema.flows import FlowReader, flow_json, match_json
from fsctl.schema.text import loads

ETH0, ETH1, TWIN = (parse_mac(f"02:00:00:00:01:0{n}") for n in (1, 2, 3))
ROUTER = Router(
    "vr1",
    {
        "eth0": Interface("vr1", "eth0", "br-a", "vif1.0", ETH0),
        "eth1": Interface("vr1", "eth1", "br-b", "vif1.1", ETH1),
        "eth2": Interface("vr1", "eth2", "br-c", "vif1.2", TWIN),
        "eth3": Interface("vr1", "eth3", "br-d", "vif1.3", TWIN),
        "eth4": Interface("vr1", "eth4", "br-e", "vif1.4", 0, up=False, why_down="no MAC address"),
    },
)
MACS = st.integers(1, (1 << 48) - 1).filter(lambda m: not m & 1 << 40 and m not in (ETH0, ETH1, TWIN))
VERSIONS = st.sampled_from((IPV4, IPV6))


@st.composite
def matches(draw: st.DrawFn) -> Match:
    in_port, version = draw(st.sampled_from(list(ROUTER.interfaces))), draw(VERSIONS)
    address = st.integers(0, (1 << BITS[version]) - 1)
    eth_src = draw(st.none() | MACS)
    if draw(st.booleans()):
        length = draw(st.integers(0, BITS[version]))
        value = draw(address) >> (BITS[version] - length) << (BITS[version] - length)
        return Match(in_port, Prefix(version, value, length), eth_src)
    port = st.integers(0, 65535)
    connection = FiveTuple(version, draw(address), draw(address), draw(st.sampled_from((6, 17))), draw(port), draw(port))
    return Match(in_port, Prefix.host(version, connection.dst), eth_src, connection)


VERDICTS = st.just(PUNT) | st.just(DROP) | st.builds(Forward, st.sampled_from(list(ROUTER.interfaces)), MACS)
DELEGATIONS = st.builds(Delegation, matches(), VERDICTS)


def read(flows: list[Any]) -> list[Change]:
    return FlowReader(ROUTER).flows(loads(json.dumps(flows).encode()), "flows")


@given(st.lists(DELEGATIONS, unique_by=lambda d: d.match, max_size=20))
def test_what_goes_out_comes_back(delegations: list[Delegation]) -> None:
    assert read([flow_json(d) for d in delegations]) == [change_of(d.match, d.verdict) for d in delegations]


@given(st.lists(matches(), unique=True, max_size=20))
def test_matches_to_remove_come_back(wanted: list[Match]) -> None:
    assert FlowReader(ROUTER).matches([match_json(m) for m in wanted], "remove") == [change_of(m, None) for m in wanted]


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.floats() | st.text(max_size=5)
    | st.sampled_from(("eth0", "eth1", "forward", "10.0.0.0/8", "10.0.0.1", "fd00::/64", "02:00:00:00:00:0b")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
NAMES = ("in", "eth_dst", "eth_src", "ipv4_dst", "ipv6_dst", "ipv4_src", "ip_proto", "tcp_src", "set", "out", "action", "x")


@st.composite
def spoiled(draw: st.DrawFn) -> list[Any]:
    """Good flows of few shapes, some with a member changed, added or taken away."""
    good = [flow_json(d) for d in draw(st.lists(DELEGATIONS, min_size=1, max_size=3))]
    flows = []
    for _ in range(draw(st.integers(1, 5))):
        flow: Any = copy.deepcopy(draw(st.sampled_from(good)))
        place = draw(st.sampled_from([flow, flow["match"], flow.get("set", flow)]))
        if draw(st.booleans()):
            place[draw(st.sampled_from(NAMES))] = draw(JUNK)
        elif draw(st.booleans()) and place:
            del place[draw(st.sampled_from(list(place)))]
        flows.append(draw(JUNK) if draw(st.integers(0, 9)) == 0 else flow)
    return flows


def outcome(reader: FlowReader, flows: list[Any]) -> Any:
    try:
        return reader.flows(flows, "flows")
    except InvalidError as e:
        return e.detail, e.field


@given(spoiled())
def test_the_quick_way_says_what_the_careful_way_says(flows: list[Any]) -> None:
    """A reader that forgets the shapes it has seen takes the careful way every time."""

    class Forgetful(dict[object, Any]):
        def __setitem__(self, key: object, value: Any) -> None:
            return None

    careful = FlowReader(ROUTER)
    careful._shapes = Forgetful()
    assert outcome(FlowReader(ROUTER), flows) == outcome(careful, flows)


@given(st.integers(0, 1), VERSIONS, st.data())
def test_prefixes_are_those_of_ipaddress(loose: int, version: int, data: st.DataObject) -> None:
    address = data.draw(st.integers(0, (1 << BITS[version]) - 1))
    length = data.draw(st.integers(0, BITS[version] + loose))
    text = f"{ipaddress.IPv4Address(address) if version == IPV4 else ipaddress.IPv6Address(address)}/{length}"
    try:
        network = ipaddress.ip_network(text)
        expected: int | None = int(network.network_address) << 8 | network.prefixlen
    except ValueError:
        expected = None
    try:
        found: int | None = key_of_text(version, text)
    except (ValueError, KeyError):
        found = None
    assert found == expected


@pytest.mark.parametrize(
    ("version", "text", "words"),
    [
        (4, "10.0.2.1/24", "host bits are set: expected 10.0.2.0/24"),
        (6, "fd00::1/64", "host bits are set: expected fd00::/64"),
        (4, "10.0.2.0/33", "a prefix length from 0 to 32"),
        (4, "10.0.2.0/", "a prefix length"),
        (4, "10.0.2.0/255.255.255.0", "a prefix length"),
        (4, "10.0.2.0/+8", "a prefix length"),
        (4, "10.0.2.0/٨", "a prefix length"),
        (4, "fd00::/64", "expected an IPv4 destination, this is IPv6"),
        (6, "10.0.0.0/8", "expected an IPv6 destination, this is IPv4"),
        (4, "10.0.2", "expected an IPv4 address or CIDR prefix"),
        (4, "010.0.0.0/8", "expected an IPv4 address"),
        (4, "10.0.0.0/8\n", "a prefix length"),
        (4, " 10.0.0.0/8", "expected an IPv4 address"),
        (6, "fe80::1%eth0", "expected an IPv6 address"),
        (4, "10.0.0.1\0", "expected an IPv4 address"),
        (4, "\ud800", "expected an IPv4 address"),
        (4, "", "expected an IPv4 address"),
        (4, 5, "expected an IPv4 address"),
        (4, None, "expected an IPv4 address"),
        (4, ["10.0.0.0/8"], "expected an IPv4 address"),
    ],
)
def test_what_is_no_prefix(version: int, text: Any, words: str) -> None:
    with pytest.raises(InvalidError, match=words) as caught:
        prefix_key(version, text, "flows[17].match.ipv4_dst")
    assert (caught.value.field, caught.value.value) == ("flows[17].match.ipv4_dst", text)


GOOD: dict[str, Any] = {
    "match": {"in": "eth0", "ipv4_dst": "10.0.2.0/24"}, "action": "forward",
    "set": {"eth_dst": "02:00:00:00:00:0b"}, "out": "eth1",
}  # fmt: skip
TCP = {"in": "eth0", "ipv4_src": "10.0.1.7", "ipv4_dst": "10.0.2.5", "ip_proto": 6, "tcp_src": 40000, "tcp_dst": 80}


def with_match(**changes: Any) -> dict[str, Any]:
    return GOOD | {"match": {k: v for k, v in (GOOD["match"] | changes).items() if v is not ...}}


def with_tcp(**changes: Any) -> dict[str, Any]:
    return GOOD | {"match": {k: v for k, v in (TCP | changes).items() if v is not ...}}


REFUSED: list[tuple[Any, str, str]] = [
    # (flow, field after flows[0], words)
    ("flow", "", "expected an object"),
    ({}, ".match", "missing"),
    ({"match": GOOD["match"]}, ".action", "missing"),
    (GOOD | {"priority": 5}, ".priority", "unknown field"),
    (GOOD | {"mach": 5}, ".mach", "did you mean match"),
    (GOOD | {"action": "accept"}, ".action", "forward, punt, drop"),
    (GOOD | {"action": ["forward"]}, ".action", "forward, punt, drop"),
    (GOOD | {"action": "punt"}, ".set", "only forward"),
    ({"match": GOOD["match"], "action": "drop", "out": "eth1"}, ".out", "only forward"),
    ({"match": GOOD["match"], "action": "forward", "out": "eth1"}, ".set", "needs"),
    ({"match": GOOD["match"], "action": "forward", "set": GOOD["set"]}, ".out", "needs"),
    (GOOD | {"out": "eth9"}, ".out", "an interface of vr1"),
    (GOOD | {"out": 1}, ".out", "an interface of vr1"),
    (GOOD | {"set": None}, ".set", "an object"),
    (GOOD | {"set": {}}, ".set.eth_dst", "missing"),
    (GOOD | {"set": {"eth_dst": "02:00:00:00:01:02"}}, ".set.eth_dst", "eth1's own"),
    (GOOD | {"set": {"eth_dst": "ff:ff:ff:ff:ff:ff"}}, ".set.eth_dst", "unicast"),
    (GOOD | {"set": {"eth_dst": "0200.0000.000b"}}, ".set.eth_dst", "MAC address"),
    (GOOD | {"set": GOOD["set"] | {"eth_src": "02:00:00:00:01:01"}}, ".set.eth_src", "MAC address of eth1"),
    (GOOD | {"out": "eth4", "set": GOOD["set"] | {"eth_src": "02:00:00:00:01:01"}}, ".set.eth_src", "not known yet"),
    (GOOD | {"set": GOOD["set"] | {"ttl": 3}}, ".set.ttl", "unknown field"),
    (with_match(ipv4_dst=...), ".match", "either ipv4_dst or ipv6_dst"),
    (with_match(ipv6_dst="fd00::/64"), ".match", "either ipv4_dst or ipv6_dst"),
    (with_match(**{"in": ...}), ".match", "expected in"),
    (with_match(**{"in": "eth9"}), ".match.in", "an interface of vr1"),
    (with_match(eth_dst="02:00:00:00:01:02"), ".match.eth_dst", "MAC address of eth0"),
    (with_match(eth_dst="02:00:00:00:00:99", **{"in": ...}), ".match.eth_dst", "one of vr1's interfaces"),
    (with_match(eth_dst="02:00:00:00:01:03", **{"in": ...}), ".match.eth_dst", "eth2, eth3"),
    (with_match(eth_dst="02:00:00:00:01:01", **{"in": "eth4"}), ".match.eth_dst", "not known yet"),
    (with_match(eth_src="01:00:5e:00:00:01"), ".match.eth_src", "unicast"),
    (with_match(eth_src=5), ".match.eth_src", "MAC address"),
    (with_match(ipv4_dst="10.0.2.1/24"), ".match.ipv4_dst", "host bits"),
    (with_match(vlan_vid=5), ".match.vlan_vid", "unknown field"),
    (with_match(ip_proto=6), ".match.ipv4_dst", "one address, not a prefix"),
    (with_tcp(ipv4_src=...), ".match.ipv4_src", "or not at all"),
    (with_tcp(ip_proto=...), ".match.ip_proto", "or not at all"),
    (with_tcp(tcp_dst=...), ".match.tcp_dst", "or not at all"),
    (with_tcp(ip_proto=1), ".match.ip_proto", "from 6 to 17"),
    (with_tcp(ip_proto=9), ".match.ip_proto", "6 .TCP. or 17"),
    (with_tcp(ip_proto="tcp"), ".match.ip_proto", "whole number"),
    (with_tcp(ip_proto=17), ".match.tcp_src", "does not go with"),
    (with_tcp(udp_dst=53), ".match.udp_dst", "does not go with"),
    (with_tcp(ipv6_src="fd00::1"), ".match.ipv6_src", "does not go with"),
    (with_tcp(ipv4_src="10.0.1.0/24"), ".match.ipv4_src", "one address"),
    (with_tcp(ipv4_dst="10.0.2.0/24"), ".match.ipv4_dst", "one address"),
    (with_tcp(tcp_src=65536), ".match.tcp_src", "from 0 to 65535"),
    (with_tcp(tcp_src=True), ".match.tcp_src", "whole number"),
    (with_tcp(tcp_src=80.0), ".match.tcp_src", "whole number"),
]


@pytest.mark.parametrize(("flow", "field", "words"), REFUSED, ids=[f"{n}{r[1]}" for n, r in enumerate(REFUSED)])
def test_refused_by_name(flow: Any, field: str, words: str) -> None:
    for before in ([], [GOOD | {"match": {"in": "eth0", "ipv4_dst": "10.9.0.0/16"}}]):
        with pytest.raises(InvalidError, match=words) as caught:
            read([*before, flow])
        assert caught.value.field == f"flows[{len(before)}]{field}"


def test_many_ways_to_say_the_same() -> None:
    expected = read([GOOD])
    mac = format_mac(ETH0).upper()
    assert read([with_match(eth_dst=mac)]) == expected
    assert read([with_match(eth_dst=mac, **{"in": ...})]) == expected
    assert read([GOOD | {"set": GOOD["set"] | {"eth_src": format_mac(ETH1)}}]) == expected
    assert read([with_match(ipv4_dst="10.0.2.5")]) == read([with_match(ipv4_dst="10.0.2.5/32")])


@pytest.mark.parametrize("twin", [GOOD, with_match(eth_dst=format_mac(ETH0)), GOOD | {"out": "eth2"}])
def test_the_same_match_twice_names_both(twin: Any) -> None:
    other = with_match(ipv4_dst="10.0.3.0/24")
    with pytest.raises(InvalidError, match=r"flows\[1\] and flows\[3\]") as caught:
        read([other, GOOD, with_match(ipv4_dst="10.0.4.0/24"), twin])
    assert caught.value.field == "flows[3]"


def test_the_same_connection_twice() -> None:
    with pytest.raises(InvalidError, match=r"flows\[0\] and flows\[1\]"):
        read([with_tcp(), with_tcp()])
    assert len(read([with_tcp(), with_tcp(tcp_src=40001), with_match(ipv4_dst="10.0.2.5")])) == 3


FULL = GOOD | {
    "match": {"in": "eth0", "eth_dst": format_mac(ETH0), "eth_src": "02:00:00:00:00:0a", "ipv4_dst": "10.0.2.0/24"},
    "set": {"eth_dst": "02:00:00:00:00:0b", "eth_src": format_mac(ETH1)},
}


@pytest.mark.parametrize(
    "path",
    [("match", "in"), ("match", "eth_dst"), ("match", "eth_src"), ("set", "eth_dst"), ("set", "eth_src"), ("action",), ("out",)],
)
def test_a_known_shape_with_one_text_wrong(path: tuple[str, ...]) -> None:
    wrong = copy.deepcopy(FULL)
    wrong["match"]["ipv4_dst"] = "10.0.3.0/24"
    assert len(read([FULL, wrong])) == 2
    place = wrong[path[0]] if len(path) > 1 else wrong
    place[path[-1]] = "02:00:00:00:01:02"  # eth1's own: right in none of these places but set.eth_src
    if path == ("set", "eth_src"):
        place[path[-1]] = format_mac(ETH0)
    if path == ("match", "eth_src"):
        assert [c.part[2] for c in read([FULL, wrong])] == [parse_mac("02:00:00:00:00:0a"), ETH1]
        return
    with pytest.raises(InvalidError) as caught:
        read([FULL, wrong])
    assert caught.value.field == f"flows[1].{'.'.join(path)}"
