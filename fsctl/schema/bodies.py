"""Whole request bodies -> what the controller is asked to do."""

from __future__ import annotations

from collections.abc import Callable

from fsctl.errors import InvalidError, TooLargeError
from fsctl.model.addresses import MAX_MTU, MIN_MTU, parse_mac
from fsctl.model.network import Address, Router
from fsctl.schema.flows import FlowReader, no_pause
from fsctl.schema.text import Json, array, fields, integer, one_of
from fsctl.status import CLEAR, Clear, InterfaceChange, NexthopMove, SessionRequest, Write

MAX_ADDRESSES = 256
"""Addresses that one interface may have: each is a hole in every chain that passes the router."""

MIN_LEASE_S, MAX_LEASE_S = 1.0, 3600.0
MAX_SESSION_ID, MAX_REASONS, MAX_SEQ_DIGITS = 128, 200, 18
REASON_TEXTS = {"name": 64, "scope": 64, "direction": 16, "reason": 500}
"""The texts of a reason, and the most characters of each; `ip` is beside them."""


def read_replacement(router: Router, body: Json, pause: Callable[[], None] = no_pause) -> Write:
    """The body of PUT /v1/routers/{r}/flows: the whole FIB. Raises InvalidError, TooLargeError."""
    flows = array(fields(body, "", ("flows",))["flows"], "flows")
    if len(flows) > router.max_flows:
        detail = f"{router.name} may have at most {router.max_flows} flows (max_flows)"
        raise TooLargeError(detail, field="flows", value=len(flows))
    return Write(router.name, FlowReader(router, pause).flows(flows, "flows"), replace=True)


def read_patch(router: Router, body: Json, pause: Callable[[], None] = no_pause) -> Write:
    """The body of PATCH /v1/routers/{r}/flows: flows to set, matches to remove. Raises InvalidError."""
    members = fields(body, "", (), ("add", "remove"))
    if not members:
        raise InvalidError("expected add, remove or both", field="add")
    reader = FlowReader(router, pause)
    removed = reader.matches(members.get("remove", []), "remove")
    return Write(router.name, removed + reader.flows(members.get("add", []), "add"))


def read_interface_change(router: str, interface: str, body: Json) -> InterfaceChange:
    """The body of PATCH /v1/routers/{r}/interfaces/{i}; null returns to the configuration's value. Raises InvalidError."""
    members = fields(body, "", (), ("addresses", "mtu"))
    if not members:
        raise InvalidError("expected addresses, mtu or both", field="addresses")
    addresses: tuple[Address, ...] | Clear | None = None
    mtu: int | Clear | None = None
    if "addresses" in members:
        addresses = CLEAR if members["addresses"] is None else _addresses(members["addresses"])
    if "mtu" in members:
        mtu = CLEAR if members["mtu"] is None else integer(members["mtu"], "mtu", MIN_MTU, MAX_MTU)
    return InterfaceChange(router, interface, addresses, mtu)


def read_nexthop_move(router: Router, body: Json) -> NexthopMove:
    """The body of PATCH /v1/routers/{r}/nexthops; raises InvalidError."""
    members = fields(body, "", ("out", "eth_dst", "new_eth_dst"))
    out = router.interfaces[one_of(members["out"], "out", tuple(router.interfaces))]
    old, new = (parse_mac(members[name], name) for name in ("eth_dst", "new_eth_dst"))
    if new == out.mac:
        detail = f"expected the next hop's MAC address; this is {out.name}'s own"
        raise InvalidError(detail, field="new_eth_dst", value=members["new_eth_dst"])
    return NexthopMove(router.name, out.name, old, new)


def read_seq(text: str) -> int:
    """The number of a session's write, in a query; raises InvalidError."""
    if not text.isascii() or not text.isdigit() or len(text) > MAX_SEQ_DIGITS:
        raise InvalidError("expected the number of the write: 1, 2, ...", field="seq", value=text)
    return int(text)


def read_session(router: str, body: Json) -> SessionRequest:
    """The body of PUT /v1/routers/{r}/session; raises InvalidError."""
    members = fields(body, "", ("id", "lease"), ("graceful_restart", "reasons", "seq"))
    session = members["id"]
    if not isinstance(session, str) or not 1 <= len(session) <= MAX_SESSION_ID:
        raise InvalidError(f"expected 1 to {MAX_SESSION_ID} characters that the agent chose", field="id", value=session)
    reasons = array(members.get("reasons", []), "reasons")
    if len(reasons) > MAX_REASONS:
        raise InvalidError(f"expected at most {MAX_REASONS}", field="reasons", value=len(reasons))
    return SessionRequest(
        router,
        session,
        _seconds(members["lease"], "lease", MIN_LEASE_S),
        _seconds(members.get("graceful_restart", 0), "graceful_restart", 0.0),
        tuple(_reason(r, f"reasons[{n}]") for n, r in enumerate(reasons)),
        integer(members.get("seq", 0), "seq", 0, 10**MAX_SEQ_DIGITS - 1),
    )


def _seconds(value: Json, field: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= MAX_LEASE_S:
        raise InvalidError(f"expected seconds, {least:g} to {MAX_LEASE_S:g}", field=field, value=value)
    return float(value)


def _addresses(value: Json) -> tuple[Address, ...]:
    texts = array(value, "addresses")
    if len(texts) > MAX_ADDRESSES:
        raise InvalidError(f"expected at most {MAX_ADDRESSES} addresses", field="addresses", value=len(texts))
    addresses: dict[Address, int] = {}
    for n, text in enumerate(texts):
        first = addresses.setdefault(Address.parse(text, f"addresses[{n}]"), n)
        if first != n:
            raise InvalidError(f"the same address stands in addresses[{first}]", field=f"addresses[{n}]", value=text)
    return tuple(addresses)


def _reason(value: Json, path: str) -> dict[str, Json]:
    """What an agent does not delegate, and why: of a fixed shape, since all of it is shown to people."""
    members = fields(value, path, ("name",), ("scope", "ip", "direction", "reason"))
    if "ip" in members:
        integer(members["ip"], f"{path}.ip", 0, 6)
    for name, most in REASON_TEXTS.items():
        text = members.get(name, "")
        if not isinstance(text, str) or len(text) > most:
            raise InvalidError(f"expected a text of at most {most} characters", field=f"{path}.{name}", value=text)
    return dict(members)
