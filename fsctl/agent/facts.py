"""Gathers what `safety` judges: sysctls, netfilter, tc, IPsec. Reads only; needs CAP_NET_ADMIN for nf_tables and xfrm.

All is asked of the kernel itself, so that no tool has to be in the guest.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from fsctl.agent import bpf, codec, xtables
from fsctl.agent.events import Link, Rule
from fsctl.agent.netlink import NETLINK_NETFILTER, NETLINK_XFRM, KernelError, NetlinkSocket, open_if_there
from fsctl.agent.safety import Chain, Facts, InterfaceFacts
from fsctl.model.addresses import IPV4, IPV6

SYSCTL = Path("/proc/sys/net")
IPVS = Path("/proc/thread-self/net/ip_vs")

NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN = 10 << 8 | 4, 10 << 8 | 3
_NF_FAMILIES = {1: (IPV4, IPV6), 2: (IPV4,), 10: (IPV6,)}
_NFPROTO_NETDEV = 5
_NF_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_NETDEV_HOOKS = ("ingress", "egress")
_NFTA_DEVICE_PREFIX = 2
XFRM_MSG_NEWPOLICY, XFRM_MSG_GETPOLICY, XFRM_MSG_GETDEFAULT = 19, 21, 40
_XFRM_FAMILY_AT, _XFRM_DIR_AT = 40, 160
_XFRM_USERPOLICY_BLOCK = 1
RTM_NEWQDISC, RTM_GETQDISC, RTM_NEWTFILTER, RTM_GETTFILTER = 36, 38, 44, 46
_TCMSG = struct.Struct("=BxxxiIII")
_CLSACT = ((0xFFFF_FFF2, "in"), (0xFFFF_FFF3, "out"))
_INGRESS = 0xFFFF_0000
_TCA_KIND, _TCA_OPTIONS, _FQ_FLOW_MAX_RATE, _FQ_UNLIMITED = 1, 2, 7, 0xFFFF_FFFF
_RULE_BYTES = 12
_IFINFOMSG = struct.Struct("=BxHiII")
_IFLA_XDP, _IFLA_XDP_ATTACHED = 43, 2


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
        """The facts about these interfaces and the whole guest. Raises KernelError, OSError."""
        qdiscs = self._qdiscs()
        interfaces = {}
        for index, link in links.items():
            there = qdiscs.get(index, {})
            interfaces[index] = InterfaceFacts(
                forwarding={IPV4: _flag(IPV4, link.name, "forwarding"), IPV6: _forwards_ipv6(link.name)},
                rp_filter=max(_int(IPV4, "all", "rp_filter"), _int(IPV4, link.name, "rp_filter")),
                redirects={IPV4: _sends_redirects(link.name), IPV6: _flag(IPV6, "all", "forwarding")},
                ipv6_mtu=_int(IPV6, link.name, "mtu"),
                xdp=self._has_xdp(index),
                qdiscs=tuple(sorted(set(there.values()))),
                **self._filters(index, there),
            )
        learns_mtu = (SYSCTL / "ipv4" / "ip_forward_use_pmtu").read_text().strip() != "0"
        return Facts(interfaces, (*self._chains(), *xtables.chains(), *ipvs()), self._policies(), learns_mtu, self._rules())

    def _rules(self) -> tuple[Rule, ...]:
        answers = self._requests.dump(codec.RTM_GETRULE, bytes(_RULE_BYTES))
        found = (codec.rule(m.payload) for m in answers if m.type == codec.RTM_NEWRULE)
        return tuple(r for r in found if r is not None)

    def _has_xdp(self, index: int) -> bool:
        """Asked each time: the kernel does not tell when a program comes by a BPF link."""
        try:
            answers = self._requests.ask(codec.RTM_GETLINK, 0, _IFINFOMSG.pack(0, 0, index, 0, 0))
        except KernelError as e:
            if e.errno == errno.ENODEV:
                return False  # it has just gone
            raise
        for message in answers:
            at = codec.attributes(message.payload, _IFINFOMSG.size)
            attached = codec.attributes(at[_IFLA_XDP], 0).get(_IFLA_XDP_ATTACHED) if _IFLA_XDP in at else None
            if attached and attached[0]:
                return True
        return False

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
        if self._blocks_by_default(self._xfrm):
            return dict.fromkeys(codec.FAMILY_OF, "the default IPsec policy is to block (ip xfrm policy getdefault)")
        counts: dict[int, int] = {}
        for message in self._xfrm.dump(XFRM_MSG_GETPOLICY, b""):
            family, direction = struct.unpack_from("=H", message.payload, _XFRM_FAMILY_AT)[0], message.payload[_XFRM_DIR_AT]
            if message.type == XFRM_MSG_NEWPOLICY and direction <= 2 and family in codec.FAMILIES:
                version = codec.FAMILIES[family]
                counts[version] = counts.get(version, 0) + 1
        return {version: f"{n} IPsec policies (ip xfrm policy)" for version, n in counts.items()}

    @staticmethod
    def _blocks_by_default(xfrm: NetlinkSocket) -> bool:
        """Does what no policy speaks of meet a block on its way through (Linux 5.15: struct xfrm_userpolicy_default)?"""
        try:
            answers = xfrm.ask(XFRM_MSG_GETDEFAULT, 0, bytes(4))
        except KernelError as e:
            if e.errno == errno.EINVAL:
                return False  # before 5.15
            raise
        return any(_XFRM_USERPOLICY_BLOCK in m.payload[1:3] for m in answers if m.type == XFRM_MSG_GETDEFAULT)

    def _qdiscs(self) -> dict[int, dict[int, str]]:
        """Interface index -> handle -> kind."""
        found: dict[int, dict[int, str]] = {}
        for message in self._requests.dump(RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
            if message.type == RTM_NEWQDISC:
                _, index, handle, _, _ = _TCMSG.unpack_from(message.payload)
                found.setdefault(index, {})[handle] = read_qdisc(codec.attributes(message.payload, _TCMSG.size))
        return found

    def _filters(self, index: int, qdiscs: Mapping[int, str]) -> dict[str, tuple[str, ...]]:
        """Also those of the root queue that the kernel made by itself, which has no handle: parent 0 is its name."""
        found: dict[str, set[str]] = {"in": set(), "out": {f"tc filter {k}" for k in self._filter_kinds(index, 0)}}
        for handle, kind in qdiscs.items():
            if kind == "clsact":
                parents: tuple[tuple[int, str], ...] = _CLSACT
            elif kind == "ingress":
                parents = ((_INGRESS, "in"),)
            else:
                parents = ((handle, "out"),) if handle else ()
            for parent, direction in parents:
                found[direction] |= {f"tc filter {k}" for k in self._filter_kinds(index, parent)}
        for direction in bpf.TCX:
            found[direction] |= {"tcx program"} if bpf.tcx_programs(index, direction) else set()
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


def read_qdisc(at: Mapping[int, memoryview]) -> str:
    """A queueing discipline's kind; fq's with its limit, if it has one (TCA_FQ_FLOW_MAX_RATE)."""
    kind = codec.text(at[_TCA_KIND]) if _TCA_KIND in at else "unknown"
    if kind == "fq" and _TCA_OPTIONS in at:
        limit = codec.attributes(at[_TCA_OPTIONS], 0).get(_FQ_FLOW_MAX_RATE)
        if limit is not None and codec.u32(limit) != _FQ_UNLIMITED:
            return "fq maxrate"
    return kind


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
    devices = [_device(0, hook[3])] if 3 in hook else []
    devices += [_device(kind, name) for kind, name in _nested(hook[4])] if 4 in hook else []
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


def _nested(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and value of every attribute, repeated ones too."""
    at = 0
    while at + 4 <= len(view):
        length, kind = struct.unpack_from("=HH", view, at)
        if length < 4:
            return
        yield kind & codec.NLA_TYPE_MASK, view[at + 4 : at + length]
        at += (length + 3) & ~3


def _device(kind: int, name: memoryview) -> str:
    """An interface's name, or a pattern (Linux 6.16: names without their zero, then NFTA_DEVICE_PREFIX)."""
    is_pattern = kind == _NFTA_DEVICE_PREFIX or not bytes(name).endswith(b"\0")
    return codec.text(name) + ("*" if is_pattern else "")


def _be32(view: memoryview) -> int:
    return int.from_bytes(view[:4], "big")


def ipvs() -> Iterator[Chain]:
    """Virtual services: the kernel's load balancer rewrites what comes back from real servers."""
    lines = IPVS.read_text().splitlines()[3:] if IPVS.exists() else []
    if lines:
        yield Chain((IPV4, IPV6), "IPVS services", "forward", "nat", rules=len(lines))


def _int(version: int, interface: str, key: str) -> int:
    path = SYSCTL / f"ipv{version}" / "conf" / interface / key
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0  # the interface has just gone, or the protocol is not built in


def _flag(version: int, interface: str, key: str) -> bool:
    return _int(version, interface, key) != 0


def _forwards_ipv6(interface: str) -> bool:
    """ip6_forward() asks the switch for all; ipv6_rcv() drops what an interface brings in that has no IPv6, or disabled."""
    has_ipv6 = (SYSCTL / "ipv6" / "conf" / interface).exists() and not _flag(IPV6, interface, "disable_ipv6")
    return has_ipv6 and _flag(IPV6, "all", "forwarding")


def _sends_redirects(interface: str) -> bool:
    """IN_DEV_TX_REDIRECTS: the interface's own switch or the one for all (linux/inetdevice.h)."""
    return _flag(IPV4, interface, "send_redirects") or _flag(IPV4, "all", "send_redirects")
