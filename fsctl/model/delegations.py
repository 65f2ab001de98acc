"""Delegations: what a router's flow table says of which packets."""

from __future__ import annotations

from dataclasses import dataclass

from fsctl.model.addresses import Prefix


@dataclass(frozen=True, slots=True, order=True)
class FiveTuple:
    """An exact connection: source and destination host, ip_proto (6 or 17) and both ports."""

    version: int
    src: int
    dst: int
    ip_proto: int
    sport: int
    dport: int

    @property
    def fragments(self) -> Fragments:
        """What all fragments of its packets match."""
        return Fragments(self.version, self.src, self.dst, self.ip_proto)


@dataclass(frozen=True, slots=True, order=True)
class Fragments:
    """All fragments of one ip_proto from one host to another; only the first fragment of a datagram has ports."""

    version: int
    src: int
    dst: int
    ip_proto: int


@dataclass(frozen=True, slots=True)
class Match:
    """What a delegation is about, at the owner's ingress interface `in_port` (its name).

    `dst` is the destination; with `connection` it is that connection's destination host.
    """

    in_port: str
    dst: Prefix
    eth_src: int | None = None
    connection: FiveTuple | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """Rewrite eth_src to the MAC of the owner's interface `out`, eth_dst to `eth_dst`, leave by `out`."""

    out: str
    eth_dst: int


@dataclass(frozen=True, slots=True)
class Punt:
    """To the router: shadows a shorter prefix."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Gone."""


Verdict = Forward | Punt | Drop


PUNT, DROP = Punt(), Drop()


@dataclass(frozen=True, slots=True)
class Delegation:
    """One entry of the flow table, owned by one router (paper, section 3)."""

    match: Match
    verdict: Verdict
