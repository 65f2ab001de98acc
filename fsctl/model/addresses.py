"""MAC and IP addresses and prefixes, as integers, with their texts.

All are frozen, slotted, and valid once built: constructors raise `InvalidError` naming the field.
MAC addresses and IP addresses are plain integers inside fsctl; `schema` is the only place that
reads and writes their texts for the outside, with the helpers below.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from fsctl.errors import InvalidError

IPV4, IPV6 = 4, 6
BITS = {IPV4: 32, IPV6: 128}
MULTICAST_BIT = 1 << 40
RESERVED_VID = 4095
"""The reserved VLAN ID (IEEE 802.1Q), the tag of fsctl's patch ports. Frames that carry it are dropped at every port."""
MIN_MTU, MAX_MTU = 68, 65535
_MAC = re.compile(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\Z")


def parse_mac(text: str, field_name: str = "mac") -> int:
    """A unicast MAC address `xx:xx:xx:xx:xx:xx` as an integer; raises InvalidError."""
    if not isinstance(text, str) or not _MAC.match(text):
        raise InvalidError("expected a MAC address like 02:00:00:00:00:01", field=field_name, value=text)
    mac = int(text.replace(":", ""), 16)
    if mac & MULTICAST_BIT or mac == 0:
        raise InvalidError("expected a unicast MAC address", field=field_name, value=text)
    return mac


def format_mac(mac: int) -> str:
    """`xx:xx:xx:xx:xx:xx`, lower case."""
    return mac.to_bytes(6, "big").hex(":")


def format_ip(version: int, value: int) -> str:
    """The usual text of an address given as an integer."""
    return str(ipaddress.IPv4Address(value) if version == IPV4 else ipaddress.IPv6Address(value))


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """A destination: `value` is the network address as an integer, `length` the prefix length."""

    version: int
    value: int
    length: int

    def __post_init__(self) -> None:
        bits = BITS[self.version]
        if not 0 <= self.length <= bits or not 0 <= self.value < 1 << bits or self.value & self.host_mask:
            raise InvalidError("expected a network prefix without host bits", field="prefix", value=(self.value, self.length))

    @classmethod
    def parse(cls, text: str, version: int | None = None, field_name: str = "prefix") -> Prefix:
        """A host or CIDR prefix; host bits must be zero. Raises InvalidError."""
        try:
            if not isinstance(text, str):
                raise ValueError(text)
            net = ipaddress.ip_network(text)
        except ValueError as e:
            raise InvalidError("expected an address or a CIDR prefix without host bits", field=field_name, value=text) from e
        if version is not None and net.version != version:
            raise InvalidError(f"expected an IPv{version} prefix", field=field_name, value=text)
        return cls(net.version, int(net.network_address), net.prefixlen)

    @classmethod
    def host(cls, version: int, value: int) -> Prefix:
        """The prefix that holds one address."""
        return cls(version, value, BITS[version])

    @property
    def host_mask(self) -> int:
        return (1 << (BITS[self.version] - self.length)) - 1

    @property
    def last(self) -> int:
        """The last address inside."""
        return self.value | self.host_mask

    def covers(self, version: int, address: int) -> bool:
        return self.version == version and self.value <= address <= self.last

    def __str__(self) -> str:
        return f"{format_ip(self.version, self.value)}/{self.length}"
