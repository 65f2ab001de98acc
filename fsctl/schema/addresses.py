"""IP addresses and prefixes from their texts, fast enough for ten thousand at once.

`socket.inet_pton` is stricter than `ipaddress` in nothing that matters here, and several times faster:
no leading zeros, no zone, no blanks, no netmask in place of a length.
"""

from __future__ import annotations

import socket

from fsctl.errors import InvalidError
from fsctl.model.addresses import BITS, IPV4, IPV6
from fsctl.model.prefix_keys import Key
from fsctl.schema.text import Json

_FAMILY = {IPV4: socket.AF_INET, IPV6: socket.AF_INET6}
_LENGTHS = {version: {str(n): n for n in range(bits + 1)} for version, bits in BITS.items()}
_HOST_MASKS = {version: [(1 << (bits - n)) - 1 for n in range(bits + 1)] for version, bits in BITS.items()}


def address_of(version: int, text: Json) -> int:
    """An address's integer; raises ValueError, TypeError or OSError where it is none."""
    return int.from_bytes(socket.inet_pton(_FAMILY[version], text), "big")


def key_of_text(version: int, text: Json) -> Key:
    """A host or CIDR prefix as `fsctl.model.fib` keeps it.

    Raises ValueError, KeyError, AttributeError, TypeError or OSError: callers with a path to name use `prefix_key`.
    """
    address, slash, length_text = text.partition("/")
    length = _LENGTHS[version][length_text] if slash else BITS[version]
    value = int.from_bytes(socket.inet_pton(_FAMILY[version], address), "big")
    if value & _HOST_MASKS[version][length]:
        raise ValueError(text)
    return value << 8 | length


def prefix_key(version: int, text: Json, path: str) -> Key:
    """A host or CIDR prefix; raises InvalidError that tells host bits from a text that is no prefix at all."""
    try:
        return key_of_text(version, text)
    except (ValueError, KeyError, AttributeError, TypeError, OSError) as e:
        raise InvalidError(_what_is_wrong(version, text), field=path, value=text) from e


def _what_is_wrong(version: int, text: Json) -> str:
    if isinstance(text, str):
        address_text, _, length_text = text.partition("/")
        for other in BITS:
            try:
                address = address_of(other, address_text)
            except (ValueError, OSError):
                continue
            if other != version:
                return f"expected an IPv{version} destination, this is IPv{other}"
            length = _LENGTHS[version].get(length_text)
            if length is None:
                return f"expected a prefix length from 0 to {BITS[version]} after the slash, as in {address_text}/{BITS[version]}"
            network = address & ~_HOST_MASKS[version][length]
            packed = network.to_bytes(BITS[version] // 8, "big")
            return f"host bits are set: expected {socket.inet_ntop(_FAMILY[version], packed)}/{length}"
    return f"expected an IPv{version} address or CIDR prefix"


def host(version: int, text: Json, path: str) -> int:
    """One address, plain or with its full length (/32, /128); raises InvalidError."""
    key = prefix_key(version, text, path)
    if key & 0xFF != BITS[version]:
        raise InvalidError("expected one address, not a prefix", field=path, value=text)
    return key >> 8
