"""The chains of x_tables ("legacy" iptables), asked for as iptables-legacy-save does: getsockopt(2), CAP_NET_ADMIN.

That tool itself need not be in the guest, and would not do: it opens a raw socket, which takes CAP_NET_RAW.
Layouts: linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fsctl.agent.netlink import KernelError
from fsctl.agent.safety import Chain
from fsctl.model.addresses import IPV4, IPV6

PROC_NET = Path("/proc/thread-self/net")
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
TRIES = 5
_GET_INFO, _GET_ENTRIES = 64, 65
_NAME_BYTES = 32
_ENTRIES_AT = (_NAME_BYTES + 4 + ctypes.alignment(ctypes.c_uint64) - 1) & -ctypes.alignment(ctypes.c_uint64)
_VERDICT_AT = 32
"""Within a standard target, after struct xt_entry_target."""
_ACCEPT = -2
"""-NF_ACCEPT - 1."""
_libc = ctypes.CDLL(None, use_errno=True)


class _Family(NamedTuple):
    """`offsets_at`: where in an entry its target's offset and its length are."""

    names: str
    tool: str
    domain: int
    level: int
    offsets_at: int


_FAMILIES = {
    IPV4: _Family("ip_tables_names", "iptables", socket.AF_INET, socket.SOL_IP, 88),
    IPV6: _Family("ip6_tables_names", "ip6tables", socket.AF_INET6, socket.IPPROTO_IPV6, 140),
}


class Info(NamedTuple):
    """struct ipt_getinfo: which hooks there are, where in the table each begins and where its policy is, and the table's size."""

    hooks: int
    starts: tuple[int, ...]
    policies: tuple[int, ...]
    size: int


def chains() -> Iterator[Chain]:
    """Of every table that this network namespace has. Raises KernelError, OSError."""
    for version, family in _FAMILIES.items():
        path = PROC_NET / family.names
        tables = path.read_text().split() if path.exists() else []
        for table in tables:
            yield from read_table(version, table, *_fetch(family, table))


def _fetch(family: _Family, table: str) -> tuple[Info, bytes]:
    """A table; asked for again where it is changed between the two questions."""
    name = table.encode().ljust(_NAME_BYTES, b"\0")
    with socket.socket(family.domain, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        for _ in range(TRIES):
            words = struct.unpack("=13I", _ask(s, family.level, _GET_INFO, name + bytes(52))[_NAME_BYTES:])
            info = Info(words[0], words[1:6], words[6:11], words[12])
            question = (name + struct.pack("=I", info.size)).ljust(_ENTRIES_AT, b"\0") + bytes(info.size)
            try:
                return info, _ask(s, family.level, _GET_ENTRIES, question)[_ENTRIES_AT:]
            except KernelError as e:
                if e.errno != errno.EAGAIN:
                    raise
    raise KernelError(f"{family.tool} table {table} keeps changing", errno.EAGAIN)


def _ask(s: socket.socket, level: int, option: int, question: bytes) -> bytes:
    """getsockopt(2) with a question in its buffer, which Python's own cannot."""
    buffer, length = ctypes.create_string_buffer(question, len(question)), ctypes.c_uint(len(question))
    if _libc.getsockopt(s.fileno(), level, option, buffer, ctypes.byref(length)):
        number = ctypes.get_errno()
        raise KernelError("cannot inspect the older iptables' tables", number)
    return buffer.raw


def read_table(version: int, table: str, info: Info, entries: bytes) -> Iterator[Chain]:
    """The built-in chains: rules up to the policy, which is an entry of its own (an unconditional verdict)."""
    family = _FAMILIES[version]
    for number, hook in enumerate(HOOKS):
        if not info.hooks & 1 << number:
            continue
        at, policy, rules = info.starts[number], info.policies[number], 0
        while at < policy:
            at, rules = at + struct.unpack_from("=H", entries, at + family.offsets_at + 2)[0], rules + 1
        target = policy + struct.unpack_from("=H", entries, policy + family.offsets_at)[0]
        verdict = struct.unpack_from("=i", entries, target + _VERDICT_AT)[0]
        kind = "nat" if table == "nat" else "filter"
        title = f"{family.tool}-legacy {table} {hook.upper()}"
        yield Chain((version,), title, hook, kind, drops=verdict != _ACCEPT, rules=rules)
