"""A controller that remembers instead of sending: `status.Backend` over plain dictionaries.

    host A - br-a - vr1 - br-b - vr2 - br-c - host B

vr1 and vr2 are the routers of the examples in docs/rest.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from fsctl.errors import FsctlError, NotFoundError, TooLargeError
from fsctl.model.addresses import format_mac, parse_mac
from fsctl.model.delegations import Delegation, Forward
from fsctl.model.fib import Fib, Page, RulePage, change_of, match_of_change
from fsctl.model.network import Address, Bridge, Interface, Network, Router
from fsctl.model.packet import Packet
from fsctl.model.prefix_keys import key_of
from fsctl.openflow.rules import FLOW_SWITCH, DecTtl, Field, Output, RuleKey, SetField, match_of
from fsctl.sessions import Sessions
from fsctl.status import (
    INSTALLED,
    SLOW_PATH,
    BridgeStatus,
    FlowStatus,
    HopReport,
    InterfaceChange,
    NexthopMove,
    Orphan,
    Override,
    RuleStatus,
    WalkReport,
    Write,
    WriteResult,
)
from fsctl.store import SqliteStore


def interface(*row: str, ofport: int) -> Interface:
    router, name, bridge, port, mac, address = row
    return Interface(router, name, bridge, port, parse_mac(mac), 1500, (Address.parse(address),), ofport)


def network() -> Network:
    """Two routers in a row over three bridges."""
    rows = (
        ("vr1", "eth0", "br-a", "vif1.0", "02:00:00:00:01:01", "10.0.1.254/24", 1),
        ("vr1", "eth1", "br-b", "vif1.1", "02:00:00:00:01:02", "10.0.9.1/30", 1),
        ("vr2", "eth0", "br-b", "vif2.0", "02:00:00:00:02:01", "10.0.9.2/30", 2),
        ("vr2", "eth1", "br-c", "vif2.1", "02:00:00:00:02:02", "10.0.8.1/30", 1),
    )
    interfaces = [interface(*texts, ofport=ofport) for *texts, ofport in rows]
    routers = {
        name: Router(name, {i.name: i for i in interfaces if i.router == name}, max_flows=limit)
        for name, limit in (("vr1", 200_000), ("vr2", 3))
    }
    bridges = {name: Bridge(name) for name in ("br-a", "br-b", "br-c")}
    return Network(bridges, routers, {name: Fib() for name in routers})


@dataclass
class FakeTicket:
    """`late`: the switches never confirm."""

    result: WriteResult
    late: FsctlError | None = None

    def wait(self, timeout: float | None = None) -> WriteResult:
        assert timeout is not None
        if self.late is not None:
            raise self.late
        return self.result

    def stored(self, timeout: float | None = None) -> WriteResult:
        assert timeout is not None
        return self.result


@dataclass
class FakeBackend:
    """Applies writes to its FIBs at once and records them."""

    network: Network = field(default_factory=network)
    revision: int = 0
    writes: list[Write] = field(default_factory=list)
    interface_changes: list[InterfaceChange] = field(default_factory=list)
    moves: list[NexthopMove] = field(default_factory=list)
    reasons: tuple[str, ...] = ()
    refusal: FsctlError | None = None
    late: FsctlError | None = None
    result: WriteResult | None = None
    now: float = 0.0
    said: dict[tuple[str, str], Override] = field(default_factory=dict)
    kept: list[Orphan] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sessions = Sessions(SqliteStore(":memory:"), lambda: self.now)

    def write(self, write: Write) -> FakeTicket:
        if self.refusal is not None:
            raise self.refusal
        self.sessions.admit(write, needs_sync=not write.replace)
        result = self.result or self._apply(write)
        self.writes.append(write)
        self.sessions.carried_out(write, replaces=write.replace)
        if write.ends_session:
            assert write.session is not None
            self.sessions.end(write.router, write.session)
        if write.is_withdrawal:
            self.kept = [orphan for orphan in self.kept if orphan.router != write.router]
        return FakeTicket(result, self.late)

    def _apply(self, write: Write) -> WriteResult:
        """As the controller counts: each change asked for, and with `replace` what goes without being named."""
        fib = self.network.fibs[write.router]
        counts = {"added": 0, "changed": 0, "removed": 0, "unchanged": 0}
        wanted = {match_of_change(change.part, change.key): change.verdict for change in write.changes}
        if write.replace:
            wanted |= {d.match: None for d in fib if d.match not in wanted}
        for match, verdict in wanted.items():
            before = fib.get(match)
            what = "added" if before is None else "removed" if verdict is None else "changed"
            counts["unchanged" if before == verdict else what] += 1
        limit, more = self.network.routers[write.router].max_flows, counts["added"] - counts["removed"]
        if more > 0 and len(fib) + more > limit:
            raise TooLargeError("too many", field="flows", value=len(fib) + more)
        for match, verdict in wanted.items():
            fib.apply(change_of(match, verdict))
        return WriteResult(self._next_revision(len(wanted) > counts["unchanged"]), **counts)

    def _next_revision(self, has_changed: bool) -> int:
        """Writes that change nothing are not counted."""
        self.revision += has_changed
        return self.revision

    def incoming(self) -> AbstractContextManager[None]:
        return nullcontext()

    def change_interface(self, change: InterfaceChange) -> FakeTicket:
        router = self.network.routers[change.router]
        if change.interface not in router.interfaces:
            raise NotFoundError("no such interface", field="interface", value=change.interface)
        self.sessions.admit(change)
        self.interface_changes.append(change)
        old, before = router.interfaces[change.interface], self.said.get((change.router, change.interface), Override())
        after = self.said[change.router, change.interface] = before.after(change)
        self._next_revision(after != before)
        declared = network().routers[change.router].interfaces[change.interface]
        addresses = declared.addresses if after.addresses is None else after.addresses
        new = replace(old, mtu=after.mtu or declared.mtu, addresses=addresses)
        changed = replace(router, interfaces={**router.interfaces, change.interface: new})
        self.network = replace(self.network, routers={**self.network.routers, change.router: changed})
        self.sessions.carried_out(change)
        return FakeTicket(WriteResult(self.revision, changed=int(new != old), unchanged=int(new == old)))

    def move_nexthop(self, move: NexthopMove) -> FakeTicket:
        self.sessions.admit(move, needs_sync=True)
        self.moves.append(move)
        fib = self.network.fibs[move.router]
        moved = [d.match for d in fib if d.verdict == Forward(move.out, move.old)]
        for match in moved:
            fib.set(match, Forward(move.out, move.new))
        self.sessions.carried_out(move)
        return FakeTicket(WriteResult(self._next_revision(bool(moved)), changed=int(bool(moved))))

    def tick(self) -> None:
        """Leases end by themselves."""
        for router in self.sessions.expired():
            self._apply(Write(router, (), replace=True))

    def overrides(self, router: str) -> Mapping[str, Override]:
        return {name: said for (owner, name), said in self.said.items() if owner == router}

    def orphans(self, *, with_flows: bool = True) -> Sequence[Orphan]:
        return [o if with_flows else replace(o, flows=()) for o in self.kept]

    def forget_orphans(self, router: str) -> bool:
        before = len(self.kept)
        self.kept = [orphan for orphan in self.kept if orphan.router != router]
        return len(self.kept) < before

    def flows(self, router: str, page: Page | None = None) -> Iterator[FlowStatus]:
        fib = self.network.fibs[router]
        for part, key, number in list(fib.numbered() if page is None else fib.page(page)):
            delegation = Delegation(match_of_change(part, key), fib.verdict(number))
            if isinstance(delegation.verdict, Forward):
                yield FlowStatus(delegation, INSTALLED, "", self._hops(router), 1200, 117600)
            else:
                yield FlowStatus(delegation, SLOW_PATH, f"punt to {router}")

    def _hops(self, router: str) -> int:
        return 2 if router == "vr1" and len(self.network.fibs["vr2"]) else 1

    def bridges(self) -> list[BridgeStatus]:
        connected = not self.reasons
        ports = {"br-a": {"vif1.0": 1, "vifA": 2}, "br-b": {"vif1.1": 1, "vif2.0": 2}, "br-c": {"vif2.1": 1, "vifB": 2}}
        links = {"br-a": ("br-c",), "br-b": (), "br-c": ("br-a",)}
        return [
            BridgeStatus(name, connected, connected, n, 10 + n, ports=tuple(p), links=links[name], ofports=p)
            for n, (name, p) in enumerate(ports.items(), start=1)
        ]

    def _chain(self) -> tuple[tuple[str, Delegation], ...]:
        return tuple((name, d) for name, fib in self.network.fibs.items() for d in fib if isinstance(d.verdict, Forward))

    def _last_mac(self) -> int:
        verdict = self._chain()[-1][1].verdict
        assert isinstance(verdict, Forward)
        return verdict.eth_dst

    def rules(self, bridge: str | None = None, page: RulePage | None = None) -> Iterator[RuleStatus]:
        """One at most, which comes before all places."""
        chain = self._chain()
        if not chain or bridge not in (None, "br-a") or (page is not None and page.after is not None):
            return
        dst = chain[0][1].match.dst
        eth_dst = self.network.routers["vr1"].interfaces["eth0"].mac
        mask = ((1 << dst.length) - 1) << (32 - dst.length)
        fields = Field("eth_dst", eth_dst), Field("eth_type", 0x0800), Field("ipv4_dst", dst.value, mask)
        key = RuleKey(FLOW_SWITCH, 1000 + 2 * dst.length, match_of(*fields))
        eth_src = self.network.routers["vr2"].interfaces["eth1"].mac
        actions = (DecTtl(len(chain)), SetField("eth_src", eth_src), SetField("eth_dst", self._last_mac()), Output(7))
        place = ("vr1", ("eth0", 4, None), key_of(dst))
        yield RuleStatus("br-a", key, actions, place, chain=chain, packets=1200, bytes=117600)

    def walk(self, packet: Packet) -> WalkReport:
        chain = self._chain()
        if not chain:
            return WalkReport((HopReport("vr1", "eth0", None),), "slow_path", "no delegation at vr1.eth0", packet)
        hops = tuple(HopReport(router, d.match.in_port, d) for router, d in chain)
        out = self.network.routers["vr2"].interfaces["eth1"]
        final = replace(packet, bridge="br-c", in_port=1, eth_src=out.mac, eth_dst=self._last_mac(), ttl=packet.ttl - len(chain))
        reason = f"{format_mac(final.eth_dst)} is no router's on br-c"
        return WalkReport(hops, "bridged", reason, final, next(self.rules()))

    def notices(self) -> list[str]:
        return []

    def unhealthy(self) -> str:
        return ""

    def not_ready(self) -> tuple[str, ...]:
        return self.reasons
