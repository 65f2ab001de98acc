"""Prefixes as single integers."""

from __future__ import annotations

from collections.abc import Mapping

from fsctl.model.addresses import BITS, Prefix

Key = int
"""A prefix as an integer: `value << 8 | length`."""
HOST_MASKS = {version: [(1 << (bits - length)) - 1 for length in range(bits + 1)] for version, bits in BITS.items()}
"""IP version -> prefix length -> the bits that tell the addresses of a prefix apart."""


def key_of(prefix: Prefix) -> Key:
    return prefix.value << 8 | prefix.length


def prefix_of(version: int, key: Key) -> Prefix:
    return Prefix(version, key >> 8, key & 0xFF)


def lengths(prefixes: Mapping[Key, int]) -> list[int]:
    """The prefix lengths present, longest first."""
    return sorted({key & 0xFF for key in prefixes}, reverse=True)


def mask(version: int, length: int) -> int:
    bits = BITS[version]
    return ((1 << length) - 1) << (bits - length)
