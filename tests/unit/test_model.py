"""Values are valid once built, and say which field is wrong otherwise."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsctl.errors import InvalidError
from fsctl.model.addresses import BITS, IPV4, IPV6, Prefix, format_ip, format_mac, parse_mac
from fsctl.model.fib import Fib
from fsctl.model.network import Address, Bridge, Interface, Network, Router

VERSIONS = st.sampled_from((IPV4, IPV6))


@st.composite
def prefixes(draw: st.DrawFn) -> Prefix:
    version = draw(VERSIONS)
    length = draw(st.integers(0, BITS[version]))
    shift = BITS[version] - length
    return Prefix(version, draw(st.integers(0, (1 << length) - 1)) << shift, length)


@given(st.integers(1, (1 << 48) - 1).filter(lambda mac: not mac & 1 << 40))
def test_a_mac_survives_its_text(mac: int) -> None:
    assert parse_mac(format_mac(mac)) == mac
    assert parse_mac(format_mac(mac).upper()) == mac


@pytest.mark.parametrize(
    "text", ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "02-00-00-00-00-01", "0200.0000.0001", "g2:00:00:00:00:01",
             "02:00:00:00:00:01\n", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", 5, None],
)  # fmt: skip
def test_what_is_no_unicast_mac_is_refused(text: object) -> None:
    with pytest.raises(InvalidError) as e:
        parse_mac(text, "set.eth_dst")  # type: ignore[arg-type]
    assert (e.value.field, e.value.value) == ("set.eth_dst", text)


@given(prefixes())
def test_a_prefix_survives_its_text_and_agrees_with_ipaddress(prefix: Prefix) -> None:
    assert Prefix.parse(str(prefix)) == prefix
    network = ipaddress.ip_network(str(prefix))
    assert (prefix.value, prefix.last) == (int(network.network_address), int(network.broadcast_address))


@given(prefixes(), st.data())
def test_a_prefix_covers_from_its_first_to_its_last_address(prefix: Prefix, data: st.DataObject) -> None:
    version = data.draw(VERSIONS)
    address = data.draw(st.sampled_from((prefix.value, prefix.last, prefix.value - 1, prefix.last + 1)))
    inside = version == prefix.version and address in (prefix.value, prefix.last)
    assert prefix.covers(version, address) == inside


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0", "fd00::1/64", "", "any", 3, None, "1.2.3.4/-1"])
def test_what_is_no_prefix_is_refused(text: object) -> None:
    with pytest.raises(InvalidError) as e:
        Prefix.parse(text, field_name="match.ipv4_dst")  # type: ignore[arg-type]
    assert (e.value.field, e.value.value) == ("match.ipv4_dst", text)


def test_a_prefix_of_the_other_version_is_refused() -> None:
    assert Prefix.parse("10.0.0.0/8", IPV4).version == IPV4
    with pytest.raises(InvalidError):
        Prefix.parse("10.0.0.0/8", IPV6)


@pytest.mark.parametrize(("version", "value", "length"), [(4, 1, 31), (4, 0, 33), (4, 0, -1), (4, 1 << 32, 32), (6, 1, 127)])
def test_a_prefix_with_host_bits_cannot_be_built(version: int, value: int, length: int) -> None:
    with pytest.raises(InvalidError):
        Prefix(version, value, length)


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("10.0.1.254/24", ["10.0.1.254", "10.0.1.0", "10.0.1.255"]),
        ("10.0.1.1/30", ["10.0.1.1", "10.0.1.0", "10.0.1.3"]),
        ("10.0.1.1/31", ["10.0.1.1"]),
        ("10.0.1.1/32", ["10.0.1.1"]),
        ("fd00::5/64", ["fd00::5", "fd00::"]),
        ("fd00::5/126", ["fd00::5", "fd00::4"]),
        ("fd00::5/127", ["fd00::5"]),
    ],
)
def test_an_address_makes_these_destinations_the_routers_own(text: str, own: list[str]) -> None:
    address = Address.parse(text)
    assert str(address) == text
    assert sorted(format_ip(address.version, value) for value in address.own()) == sorted(own)


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.1/33", "host/24", 7])
def test_what_is_no_interface_address_is_refused(text: object) -> None:
    with pytest.raises(InvalidError) as e:
        Address.parse(text)  # type: ignore[arg-type]
    assert e.value.value == text


def test_a_network_knows_who_owns_a_mac_on_a_bridge_and_which_addresses_are_a_routers_own() -> None:
    here = Interface("r", "eth0", "br0", "p0", 0xA, addresses=(Address.parse("10.0.0.1/32"),))
    there = Interface("r", "eth1", "br1", "p1", 0xA, addresses=(Address.parse("fd00::1/128"),))
    router = Router("r", {"eth0": here, "eth1": there})
    network = Network({"br0": Bridge("br0"), "br1": Bridge("br1")}, {"r": router}, {"r": Fib()})
    assert network.by_mac == {("br0", 0xA): here, ("br1", 0xA): there}
    assert network.own_addresses == {"r": {(4, 0x0A000001), (6, 0xFD00 << 112 | 1)}}
