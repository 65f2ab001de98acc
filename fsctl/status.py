"""What the controller answers: the results and views that REST and the command line show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from fsctl.model.delegations import Delegation, Match
from fsctl.model.fib import Change, Page, RulePage, RulePlace
from fsctl.model.network import Address, Network
from fsctl.model.packet import Packet
from fsctl.openflow.decode import ForeignRule
from fsctl.openflow.rules import Action, RuleKey, RuleTable

INSTALLED, SLOW_PATH, REFUSED = "installed", "slow_path", "refused"


class Authored(Protocol):
    """A change and its author: the session that it names and its number there, or no session (None)."""

    @property
    def router(self) -> str: ...
    @property
    def session(self) -> str | None: ...
    @property
    def seq(self) -> int | None: ...
    @property
    def is_admin(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Write:
    """An atomic change of one router's FIB. `replace`: delegations that are not among `changes` are removed.

    `ends_session`: once this is stored, the session is forgotten. `is_admin` is true for fsctl itself too.
    """

    router: str
    changes: Sequence[Change]
    replace: bool = False
    session: str | None = None
    seq: int | None = None
    is_admin: bool = False
    ends_session: bool = False

    @property
    def is_withdrawal(self) -> bool:
        """It leaves the FIB empty."""
        return self.replace and not self.changes


@dataclass(frozen=True, slots=True)
class Failure:
    """A delegation whose rule a switch rejected, with the switch's words."""

    match: Match
    bridge: str
    error: str


@dataclass(frozen=True, slots=True)
class WriteResult:
    """`waiting_for` names bridges that have not confirmed: their rules follow.

    `is_stored` is false for a withdrawal that is in force although the store did not take it; it is stored later.
    """

    revision: int
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    failed: tuple[Failure, ...] = ()
    waiting_for: tuple[str, ...] = ()
    is_stored: bool = True


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """A delegation and what became of it. `hops` counts the routers bypassed from its ingress on.

    `packets` and `bytes` are those bypassed by the rules whose chain begins with or passes this delegation.
    """

    delegation: Delegation
    state: str
    reason: str = ""
    hops: int = 0
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class BridgeStatus:
    """A bridge as the controller sees it. `in_sync`: the switch has confirmed to hold what is wanted.

    `repairs` counts fsctl's repairs of rules that somebody else had changed, and the comparisons that found them.
    `ofports` are the OpenFlow numbers of the ports by name, as far as they are known (for POST /v1/walk).
    """

    name: str
    connected: bool
    in_sync: bool
    datapath_id: int | None = None
    rules: int = 0
    ways: int = 0
    ports: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    ofports: Mapping[str, int] = field(default_factory=dict)
    repairs: int = 0


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """An installed rule of the flow switch, with its way's `actions`; `chain`: the (router, delegation) it was collapsed from."""

    bridge: str
    key: RuleKey
    actions: tuple[Action, ...]
    place: RulePlace
    way: int | None = None
    chain: tuple[tuple[str, Delegation], ...] = ()
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class HopReport:
    """One hop of a walk: the interface that the packet came to, and the delegation that decided (None: no match)."""

    router: str
    interface: str
    delegation: Delegation | None


@dataclass(frozen=True, slots=True)
class WalkReport:
    """`end` is "bridged", "dropped" or "slow_path"; `final` the packet as it ends; `rule` does it, if any."""

    hops: tuple[HopReport, ...]
    end: str
    reason: str
    final: Packet
    rule: RuleStatus | None = None


class Ticket(Protocol):
    """A write under way."""

    def wait(self, timeout: float | None = None) -> WriteResult:
        """Wait until the switches have confirmed. Raises the error that the write failed with (FsctlError).

        Raises UnavailableError after `timeout` seconds. A write that has not begun by then is cancelled; the error
        says whether it is cancelled, under way, or stored and not confirmed.
        """
        ...

    def stored(self, timeout: float | None = None) -> WriteResult:
        """Wait until the write is durable; the result has revision and counts only. Raises the same errors."""
        ...


class Clear(Enum):
    """`CLEAR` in place of a value removes what the router said: the configuration holds again."""

    CLEAR = "clear"


CLEAR = Clear.CLEAR


@dataclass(frozen=True, slots=True)
class InterfaceChange:
    """What a router says of its own interface; None leaves a value as it is, CLEAR returns to the configuration's."""

    router: str
    interface: str
    addresses: tuple[Address, ...] | Clear | None = None
    mtu: int | Clear | None = None
    session: str | None = None
    seq: int | None = None
    is_admin: bool = False


class Override(NamedTuple):
    """What a router said of its own interface over REST; None: nothing, so the configuration holds."""

    addresses: tuple[Address, ...] | None = None
    mtu: int | None = None

    def after(self, change: InterfaceChange) -> Override:
        """The override after a change."""
        addresses, mtu = self
        if change.addresses is not None:
            addresses = None if isinstance(change.addresses, Clear) else change.addresses
        if change.mtu is not None:
            mtu = None if isinstance(change.mtu, Clear) else change.mtu
        return Override(addresses, mtu)


@dataclass(frozen=True, slots=True)
class NexthopMove:
    """The neighbour at a router's interface `out` has the MAC address `new` instead of `old`."""

    router: str
    out: str
    old: int
    new: int
    session: str | None = None
    seq: int | None = None
    is_admin: bool = False


@dataclass(frozen=True, slots=True)
class Orphan:
    """Delegations kept aside at a start, because the configuration no longer has the router or interface that they name.

    `since` is a Unix time; `flows` have REST's form; they are empty where only the `count` was asked for.
    """

    router: str
    since: int
    count: int
    why: str
    flows: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """An agent opens or renews its session; times in seconds. `reasons`: what it does not delegate, for people; `seq`: its last
    write so far, which counts if the session is opened: what was sent before that, and comes later, is ignored."""

    router: str
    id: str
    lease_s: float
    grace_s: float = 0.0
    reasons: tuple[Mapping[str, object], ...] = ()
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """An agent's hold on a router since `opened` (POSIX time), last heard of at `beat`. `is_synced`: it has replaced the FIB."""

    router: str
    id: str
    lease_s: float
    grace_s: float
    beat: float
    reasons: tuple[Mapping[str, object], ...] = ()
    is_synced: bool = False
    seq: int = 0
    opened: float = 0.0

    def is_over(self, now: float) -> bool:
        """The lease has run out; the delegations stay for the grace."""
        return now > self.beat + self.lease_s

    @property
    def ends(self) -> float:
        """When the FIB is withdrawn unless the agent sends a heartbeat."""
        return self.beat + self.lease_s + self.grace_s


class SessionBook(Protocol):
    """See `sessions.Sessions`."""

    def get(self, router: str) -> Session | None: ...
    def open(self, request: SessionRequest) -> Session: ...


class Backend(Protocol):
    """The controller as northbound sees it. Methods raise NotFoundError for unknown routers and interfaces."""

    @property
    def network(self) -> Network: ...
    @property
    def revision(self) -> int: ...
    @property
    def sessions(self) -> SessionBook: ...
    def write(self, write: Write) -> Ticket: ...
    def incoming(self) -> AbstractContextManager[None]:
        """A context for reading a write's body until `write` is called: writes that arrive meanwhile are batched with it."""
        ...

    def change_interface(self, change: InterfaceChange) -> Ticket: ...
    def move_nexthop(self, move: NexthopMove) -> Ticket: ...
    def overrides(self, router: str) -> Mapping[str, Override]:
        """What a router said of its interfaces over REST, by interface."""
        ...

    def orphans(self, *, with_flows: bool = True) -> Sequence[Orphan]: ...
    def forget_orphans(self, router: str) -> bool: ...
    def flows(self, router: str, page: Page | None = None) -> Iterable[FlowStatus]: ...
    def bridges(self) -> Sequence[BridgeStatus]: ...
    def notices(self) -> Sequence[str]:
        """Texts for the operator about bridges that are not configured any more."""
        ...

    def rules(self, bridge: str | None = None, page: RulePage | None = None) -> Iterable[RuleStatus]: ...
    def walk(self, packet: Packet) -> WalkReport: ...
    def unhealthy(self) -> str:
        """Why the controller does not work; empty if it works."""
        ...

    def not_ready(self) -> Sequence[str]:
        """Why fsctl is not ready: bridges that are not connected or not in sync, OVSDB, the store. Empty if it is."""
        ...


@dataclass(slots=True)
class Rejection:
    """A change that a switch rejected, with OpenFlow's error type and code and their name."""

    key: RuleKey
    error: str
    type: int = 0
    code: int = 0


@dataclass(frozen=True, slots=True)
class Dump:
    """What a switch holds: fsctl's rules, and what others have there.

    `warnings` are texts of foreign rules for people; `foreign` are their keys (table, priority, match); `policies` are
    those that may do something to packets which the bypass would lead past them.
    """

    table: RuleTable
    warnings: tuple[str, ...] = ()
    foreign: frozenset[RuleKey] = frozenset()
    policies: tuple[ForeignRule, ...] = ()


@dataclass(slots=True)
class PortInfo:
    """What OVSDB knows of a port."""

    name: str
    bridge: str
    attached_mac: int | None = None
    mtu: int = 1500
    exempt: str = ""
    """Why nothing that arrives there is bypassed ("has a VLAN configuration"); empty: it may be."""
    unfit: str = ""
    """Why no router's interface there is bypassed ("has QoS"): `exempt`, or what the host does to its packets."""
    iface_id: str = ""
    uuid: str = ""
    has_senders: bool = True
    """Whether NORMAL takes untagged frames from there, as of VLAN 0."""


@dataclass(frozen=True, slots=True)
class BridgeInfo:
    """What OVSDB knows of a bridge. `warnings` name settings that hinder fsctl."""

    name: str
    datapath_type: str = ""
    mac_age_s: int = 300
    mac_table_size: int = 8192
    warnings: tuple[str, ...] = ()
    datapath_id: int | None = None


@dataclass(slots=True)
class OvsdbView:
    """OVSDB's ports by (bridge, port name), and the patch ports that fsctl made: bridge -> peer bridge -> port name.

    `link_problems` says why a link that is wanted is not there. `is_known` is false until the database has been read.
    """

    ports: dict[tuple[str, str], PortInfo] = field(default_factory=dict)
    links: dict[str, dict[str, str]] = field(default_factory=dict)
    bridges: Mapping[str, BridgeInfo] = field(default_factory=dict)
    link_problems: Mapping[frozenset[str], str] = field(default_factory=dict)
    is_known: bool = False
