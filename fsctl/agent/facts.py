"""Gathers what `safety` judges: sysctls, netfilter, tc, IPsec. Reads only; needs CAP_NET_ADMIN for nf_tables and xfrm.

nf_tables, tc and xfrm are asked over netlink, so that no tool has to be in the guest; the older iptables ("legacy")
can only be asked by its own tool, and where that is missing, what cannot be inspected is refused.
"""

from __future__ import annotations

import errno
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from fsctl.agent import codec
from fsctl.agent.events import Link
from fsctl.agent.netlink import NETLINK_NETFILTER, NETLINK_XFRM, KernelError, NetlinkSocket, open_if_there
from fsctl.agent.safety import Chain, Facts, InterfaceFacts
from fsctl.errors import UnavailableError
from fsctl.model import IPV4, IPV6

SYSCTL = Path("/proc/sys/net")
PROC_NET = Path("/proc/thread-self/net")
LEGACY = {IPV4: ("ip_tables_names", "iptables-legacy-save"), IPV6: ("ip6_tables_names", "ip6tables-legacy-save")}
TOOL_SECONDS = 5.0

NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN = 10 << 8 | 4, 10 << 8 | 3
_NF_FAMILIES = {1: (IPV4, IPV6), 2: (IPV4,), 10: (IPV6,)}
_NFPROTO_NETDEV = 5
_NF_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_NETDEV_HOOKS = ("ingress", "egress")
XFRM_MSG_NEWPOLICY, XFRM_MSG_GETPOLICY = 19, 21
_XFRM_FAMILY_AT, _XFRM_DIR_AT = 40, 160
RTM_NEWQDISC, RTM_GETQDISC, RTM_NEWTFILTER, RTM_GETTFILTER = 36, 38, 44, 46
_TCMSG = struct.Struct("=BxxxiIII")
_CLSACT = ((0xFFFF_FFF2, "in"), (0xFFFF_FFF3, "out"))
_INGRESS = 0xFFFF_0000


class Inspector:
    """Holds its sockets open; `look` takes a few milliseconds."""

    def __init__(self, requests: NetlinkSocket) -> None:
        self._requests = requests
        self._netfilter = open_if_there(NETLINK_NETFILTER)
        self._xfrm = open_if_there(NETLINK_XFRM)

    def close(self) -> None:
        for s in (self._netfilter, self._xfrm):
            if s is not None:
                s.close()

    def look(self, links: Mapping[int, Link]) -> Facts:
        """The facts about these interfaces and the whole guest. Raises KernelError, OSError, UnavailableError."""
        qdiscs = self._qdiscs()
        interfaces = {}
        for index, link in links.items():
            there = qdiscs.get(index, {})
            interfaces[index] = InterfaceFacts(
                forwarding={IPV4: _flag(IPV4, link.name, "forwarding"), IPV6: _flag(IPV6, "all", "forwarding")},
                strict_rp_filter=max(_int(IPV4, "all", "rp_filter"), _int(IPV4, link.name, "rp_filter")) == 1,
                redirects={IPV4: _sends_redirects(link.name), IPV6: _flag(IPV6, "all", "forwarding")},
                qdiscs=tuple(sorted(set(there.values()))),
                **self._filters(index, there),
            )
        return Facts(interfaces, (*self._chains(), *legacy_chains()), self._policies())

    def _chains(self) -> Iterator[Chain]:
        if self._netfilter is None:
            return
        try:
            answers = self._netfilter.dump(NFT_MSG_GETCHAIN, bytes(4))
        except KernelError as e:
            if e.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # nfnetlink is there, nf_tables is not
                return
            raise
        for message in answers:
            chain = read_chain(message.payload) if message.type == NFT_MSG_NEWCHAIN else None
            if chain is not None:
                yield chain

    def _policies(self) -> dict[int, str]:
        """Policies for forwarded packets, or for all that come in or go out."""
        if self._xfrm is None:
            return {}
        counts: dict[int, int] = {}
        for message in self._xfrm.dump(XFRM_MSG_GETPOLICY, b""):
            family, direction = struct.unpack_from("=H", message.payload, _XFRM_FAMILY_AT)[0], message.payload[_XFRM_DIR_AT]
            if message.type == XFRM_MSG_NEWPOLICY and direction <= 2 and family in codec.FAMILIES:
                version = codec.FAMILIES[family]
                counts[version] = counts.get(version, 0) + 1
        return {version: f"{n} IPsec policies (ip xfrm policy)" for version, n in counts.items()}

    def _qdiscs(self) -> dict[int, dict[int, str]]:
        """Interface index -> handle -> kind."""
        found: dict[int, dict[int, str]] = {}
        for message in self._requests.dump(RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
            if message.type == RTM_NEWQDISC:
                _, index, handle, _, _ = _TCMSG.unpack_from(message.payload)
                at = codec.attributes(message.payload, _TCMSG.size)
                found.setdefault(index, {})[handle] = codec.text(at[1]) if 1 in at else "unknown"
        return found

    def _filters(self, index: int, qdiscs: Mapping[int, str]) -> dict[str, tuple[str, ...]]:
        found: dict[str, set[str]] = {"in": set(), "out": set()}
        for handle, kind in qdiscs.items():
            if kind == "clsact":
                parents: tuple[tuple[int, str], ...] = _CLSACT
            elif kind == "ingress":
                parents = ((_INGRESS, "in"),)
            else:
                parents = ((handle, "out"),) if handle else ()
            for parent, direction in parents:
                found[direction] |= {f"tc filter {k}" for k in self._filter_kinds(index, parent)}
        return {f"filters_{direction}": tuple(sorted(words)) for direction, words in found.items()}

    def _filter_kinds(self, index: int, parent: int) -> Iterator[str]:
        try:
            answers = self._requests.dump(RTM_GETTFILTER, _TCMSG.pack(0, index, 0, parent, 0))
        except KernelError as e:
            if e.errno in (errno.EINVAL, errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP):
                return  # a classless qdisc has none; the interface may just have gone
            raise
        for message in answers:
            if message.type == RTM_NEWTFILTER:
                at = codec.attributes(message.payload, _TCMSG.size)
                yield codec.text(at[1]) if 1 in at else "unknown"


def read_chain(payload: memoryview) -> Chain | None:
    """NFT_MSG_NEWCHAIN (linux/netfilter/nf_tables.h): a base chain, or None for one that others jump to."""
    family = payload[0]
    at = codec.attributes(payload, 4)
    if 4 not in at:  # NFTA_CHAIN_HOOK
        return None
    hook = codec.attributes(at[4], 0)
    number = _be32(hook[1])
    names = _NETDEV_HOOKS if family == _NFPROTO_NETDEV else _NF_HOOKS
    versions = _NF_FAMILIES.get(family, ())
    devices = [codec.text(hook[3])] if 3 in hook else []
    devices += [codec.text(v) for v in _nested(hook[4])] if 4 in hook else []
    if not versions and family != _NFPROTO_NETDEV:
        return None  # arp and bridge chains see no routed packet
    return Chain(
        versions,
        f"nftables {codec.text(at[1])} {codec.text(at[3])}",
        names[number] if number < len(names) else "forward",
        codec.text(at[7]) if 7 in at else "filter",
        drops=5 in at and _be32(at[5]) == 0,
        rules=_be32(at[6]) if 6 in at else 0,  # NFTA_CHAIN_USE: nobody can jump to a base chain, so these are its rules
        devices=tuple(devices),
    )


def _nested(view: memoryview) -> Iterator[memoryview]:
    at = 0
    while at + 4 <= len(view):
        length = struct.unpack_from("=H", view, at)[0]
        if length < 4:
            return
        yield view[at + 4 : at + length]
        at += (length + 3) & ~3


def _be32(view: memoryview) -> int:
    return int.from_bytes(view[:4], "big")


def legacy_chains() -> Iterator[Chain]:
    """The chains of x_tables ("legacy" iptables), where the kernel has any of its tables loaded."""
    for version, (names, tool) in LEGACY.items():
        path = PROC_NET / names
        tables = path.read_text().split() if path.exists() else []
        for table in tables:
            if shutil.which(tool) is None:
                reason = f"{tool[:-5]} table {table}, which cannot be inspected ({tool} is missing)"
                yield Chain((version,), reason, "forward", "nat" if table == "nat" else "filter", drops=True)
            else:
                yield from read_legacy(version, table, _run(tool, "-t", table))


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TOOL_SECONDS)
    except (subprocess.SubprocessError, OSError) as e:
        raise UnavailableError(f"cannot inspect netfilter: {e}", field=command[0]) from e
    return done.stdout


def read_legacy(version: int, table: str, saved: str) -> Iterator[Chain]:
    """The built-in chains in the output of iptables-save."""
    policies, rules = dict[str, str](), dict[str, int]()
    for line in saved.splitlines():
        words = line.split()
        if line.startswith(":"):
            policies[words[0][1:]] = words[1]
        elif words[:1] == ["-A"]:
            rules[words[1]] = rules.get(words[1], 0) + 1
    for name, policy in policies.items():
        if policy != "-":
            kind = "nat" if table == "nat" else "filter"
            title = f"iptables-legacy {table} {name}"
            yield Chain((version,), title, name.lower(), kind, drops=policy != "ACCEPT", rules=rules.get(name, 0))


def _int(version: int, interface: str, key: str) -> int:
    path = SYSCTL / f"ipv{version}" / "conf" / interface / key
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0  # the interface has just gone, or the protocol is not built in


def _flag(version: int, interface: str, key: str) -> bool:
    return _int(version, interface, key) != 0


def _sends_redirects(interface: str) -> bool:
    """IN_DEV_TX_REDIRECTS: the interface's own switch or the one for all (linux/inetdevice.h)."""
    return _flag(IPV4, interface, "send_redirects") or _flag(IPV4, "all", "send_redirects")
