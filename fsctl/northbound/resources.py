"""The calls of docs/rest.md; each reads the request, asks the backend and writes the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import ClassVar, TypedDict

import falcon

from fsctl.errors import MalformedError, NotFoundError, UnavailableError
from fsctl.hosts import on_their_own_link, warnings_of
from fsctl.model.delegations import Drop, Forward
from fsctl.model.fib import Page, place_of
from fsctl.model.network import Network, Router
from fsctl.northbound import problems
from fsctl.northbound.discretion import Discretion
from fsctl.northbound.requests import JSON_TYPE, body_size, no_body, parameters, read_json
from fsctl.northbound.shares import ADMINISTRATOR, Bodies, Lists, Pieces
from fsctl.schema.answers import (
    bridge_json,
    flow_status_json,
    orphan_json,
    router_json,
    rule_status_json,
    session_json,
    walk_json,
    write_result_json,
)
from fsctl.schema.bodies import read_interface_change, read_nexthop_move, read_patch, read_replacement, read_seq, read_session
from fsctl.schema.cursor import cursor_of, read_page, read_rule_page, rule_cursor_of
from fsctl.schema.flows import match_json
from fsctl.schema.packets import read_packet
from fsctl.schema.text import Json, dumps
from fsctl.status import INSTALLED, REFUSED, SLOW_PATH, Backend, FlowStatus, RuleStatus, Ticket, Write, WriteResult

_WAIT = {"wait": ("yes", "no")}
_WRITE: dict[str, tuple[str, ...]] = {**_WAIT, "session": (), "seq": ()}
MOST_EXPLAINED = 8
"""Flows of a write of which the answer says that they are not bypassed."""
SMALL_BODY = 1 << 18
FLOW_BYTES = 1024
"""Bytes of a body that are read at most: for what is not flows, and for each flow that the router may have."""
_BATCH = 500
"""Elements of a long answer per piece; other requests are served between two pieces."""


class _Author(TypedDict):
    session: str | None
    seq: int | None
    is_admin: bool


@dataclass(frozen=True, slots=True)
class Service:
    """What every resource needs. `patience_s`: how long a write waits for the switches; `pause` lets others run."""

    backend: Backend
    max_body: int
    patience_s: float
    pause: Callable[[], None]
    bodies: Bodies = field(default_factory=Bodies)
    lists: Lists = field(default_factory=Lists)


class Resource:
    """One path. `admin_only`: routers' tokens do not reach it; `is_public`: it needs no token."""

    admin_only: ClassVar[bool] = False
    is_public: ClassVar[bool] = False

    def __init__(self, service: Service) -> None:
        self.service = service
        self.backend = service.backend

    def body(self, req: falcon.Request) -> Json:
        return read_json(req, min(SMALL_BODY, self.service.max_body))

    def is_for_administrator(self, req: falcon.Request) -> bool:
        principal = getattr(req.context, "principal", None)
        return principal is not None and bool(principal.is_admin)

    def caller(self, req: falcon.Request) -> str:
        """The name under which what a caller holds is counted."""
        return req.context.principal.router or ADMINISTRATOR

    def author(self, req: falcon.Request) -> _Author:
        """The author of a change; the controller refuses a change that is not of the router's session, or late."""
        given = parameters(req, _WRITE)
        seq = read_seq(given["seq"]) if "seq" in given else None
        return {"session": given.get("session"), "seq": seq, "is_admin": req.context.principal.is_admin}

    def shown(self, network: Network, router: str) -> Json:
        """A router as /v1/routers shows it."""
        session, overrides = self.backend.sessions.get(router), self.backend.overrides(router)
        warnings = warnings_of(network, router, has_agent=session is not None)
        return router_json(network.routers[router], network.fibs.get(router), session, overrides, warnings)

    def answer_write(self, req: falcon.Request, resp: falcon.Response, ticket: Ticket) -> None:
        """200 once the switches have confirmed; 202 with ?wait=no, once the write is stored.

        The query was checked before there was a ticket.
        """
        waits = req.params.get("wait") != "no"
        if waits:
            result = ticket.wait(self.service.patience_s)
        else:
            result = ticket.stored(self.service.patience_s)
            resp.status = falcon.HTTP_202
        req.context.summary = _summary(result)
        if not self.is_for_administrator(req):
            result = Discretion(self.backend.network, req.context.principal.router).result(result)
        also = {"warnings": getattr(req.context, "warnings", []), "not_bypassed": self.not_bypassed(req) if waits else []}
        _send(resp, write_result_json(result) | {name: list(told) for name, told in also.items() if told})

    def not_bypassed(self, req: falcon.Request) -> list[Json]:
        """Which flows of a small write are left to the router, and why; those that a switch has rejected have `failed`."""
        write: Write | None = getattr(req.context, "write", None)
        if write is None or len(write.changes) > MOST_EXPLAINED:
            return []
        found: list[FlowStatus] = []
        for part, key, verdict in write.changes:
            if isinstance(verdict, Forward | Drop):
                found += (s for s in self.backend.flows(write.router, Page(1, only=(part, key))) if s.state == SLOW_PATH)
        if not self.is_for_administrator(req):
            found = [Discretion(self.backend.network, write.router).flow(status) for status in found]
        return [{"match": match_json(s.delegation.match), "reason": s.reason} for s in found]


class Routers(Resource):
    """/v1/routers: all for the administrator, itself for a router."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        parameters(req, {})
        network, principal = self.backend.network, req.context.principal
        seen = [r for name, r in network.routers.items() if principal.router in (None, name)]
        _send(resp, {"routers": [self.shown(network, r.name) for r in seen]})


class OneRouter(Resource):
    """/v1/routers/{router}"""

    def on_get(self, req: falcon.Request, resp: falcon.Response, router: str) -> None:
        parameters(req, {})
        _send(resp, self.shown(self.backend.network, router))


class OneInterface(Resource):
    """/v1/routers/{router}/interfaces/{interface}"""

    def on_patch(self, req: falcon.Request, resp: falcon.Response, router: str, interface: str) -> None:
        change = read_interface_change(router, interface, self.body(req))
        self.answer_write(req, resp, self.backend.change_interface(replace(change, **self.author(req))))


class Flows(Resource):
    """/v1/routers/{router}/flows: the router's FIB."""

    def write_of(self, req: falcon.Request, router: str, read: Callable[[Router, Json, Callable[[], None]], Write]) -> Write:
        """The write that the body describes."""
        here = self.backend.network.routers[router]
        most, pause = min(SMALL_BODY + FLOW_BYTES * here.max_flows, self.service.max_body), self.service.pause
        with self.service.bodies.reading(self.caller(req), body_size(req, most)):
            body = read_json(req, most, dict.fromkeys(("flows", "add", "remove"), here.max_flows), pause)
            write = replace(read(here, body, pause), **self.author(req))
        if write.session is None:  # an agent knows its links, and asks for what it wants to know
            req.context.write = write
            req.context.warnings = on_their_own_link(here, write.changes)
        return write

    def on_get(self, req: falcon.Request, resp: falcon.Response, router: str) -> None:
        given = parameters(req, {"state": (INSTALLED, SLOW_PATH, REFUSED), "limit": (), "after": ()})
        state, page = given.get("state"), read_page(given)
        head: dict[str, Json] = {"router": router, "revision": self.backend.revision}
        ended = self.service.lists.open(self.caller(req)) if page is None else None
        found: Iterable[FlowStatus] = self.backend.flows(router, page)
        if page is not None:
            found = list(found)
            head["next"] = cursor_of(place_of(found[-1].delegation.match)) if len(found) == page.limit else None
        statuses: Iterable[FlowStatus] = (s for s in found if state in (None, s.state))
        if not self.is_for_administrator(req):
            statuses = map(Discretion(self.backend.network, router).flow, statuses)
        flows = map(flow_status_json, statuses)
        _stream(resp, head, "flows", flows, ended)

    def on_put(self, req: falcon.Request, resp: falcon.Response, router: str) -> None:
        with self.backend.incoming():
            ticket = self.backend.write(self.write_of(req, router, read_replacement))
        self.answer_write(req, resp, ticket)

    def on_patch(self, req: falcon.Request, resp: falcon.Response, router: str) -> None:
        self.answer_write(req, resp, self.backend.write(self.write_of(req, router, read_patch)))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, router: str) -> None:
        no_body(req)
        self.answer_write(req, resp, self.backend.write(Write(router, (), replace=True, **self.author(req))))


class Nexthops(Resource):
    """/v1/routers/{router}/nexthops: a neighbour has another MAC address."""

    def on_patch(self, req: falcon.Request, resp: falcon.Response, router: str) -> None:
        move = read_nexthop_move(self.backend.network.routers[router], self.body(req))
        self.answer_write(req, resp, self.backend.move_nexthop(replace(move, **self.author(req))))


class OneSession(Resource):
    """/v1/routers/{router}/session: the agent's hold on the router."""

    def on_put(self, req: falcon.Request, resp: falcon.Response, router: str) -> None:
        parameters(req, {})
        _send(resp, session_json(self.backend.sessions.open(read_session(router, self.body(req)))))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, router: str) -> None:
        no_body(req)
        given = parameters(req, {**_WAIT, "session": ()})
        if "session" not in given:
            raise MalformedError("missing query parameter", field="session")
        withdrawal = Write(router, (), replace=True, session=given["session"], ends_session=True)
        self.answer_write(req, resp, self.backend.write(withdrawal))


class Bridges(Resource):
    """/v1/bridges"""

    admin_only = True

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        parameters(req, {})
        notices: list[Json] = list(self.backend.notices())
        _send(resp, {"bridges": [bridge_json(b) for b in self.backend.bridges()], "notices": notices})


class Rules(Resource):
    """/v1/rules"""

    admin_only = True

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        given = parameters(req, {"bridge": tuple(self.backend.network.bridges), "limit": (), "after": ()})
        page = read_rule_page(given)
        head: dict[str, Json] = {"revision": self.backend.revision}
        ended = self.service.lists.open(self.caller(req)) if page is None else None
        rules: Iterable[RuleStatus] = self.backend.rules(given.get("bridge"), page)
        if page is not None:
            rules = list(rules)
            head["next"] = rule_cursor_of(rules[-1].place) if len(rules) == page.limit else None
        _stream(resp, head, "rules", map(rule_status_json, rules), ended)


class Orphans(Resource):
    """/v1/orphans: delegations of what is no longer configured."""

    admin_only = True

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        with_flows = parameters(req, {"flows": ("yes", "no")}).get("flows") != "no"
        _send(resp, {"orphans": [orphan_json(o, with_flows=with_flows) for o in self.backend.orphans(with_flows=with_flows)]})

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        no_body(req)
        router = parameters(req, {"router": ()}).get("router")
        if router is None:
            raise MalformedError("missing query parameter", field="router")
        if not self.backend.forget_orphans(router):
            raise NotFoundError("nothing is kept aside of this router", field="router", value=router)
        req.context.summary = f"what was kept aside of {router} is deleted"
        _send(resp, {"forgotten": router})


class Walk(Resource):
    """/v1/walk"""

    admin_only = True

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        parameters(req, {})
        bridges = self.backend.bridges()
        report = self.backend.walk(read_packet(self.body(req), bridges))
        _send(resp, walk_json(report, bridges))


class Health(Resource):
    """/healthz: the controller works, that is, its loop goes on and compiles."""

    is_public = True

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        problem = self.backend.unhealthy()
        if problem:
            problems.send(req, resp, UnavailableError(problem))
        else:
            _send(resp, {"status": "ok"})


class Readiness(Resource):
    """/readyz: every configured bridge is connected and in sync, and OVSDB and the store work."""

    is_public = True

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        reasons = list(self.backend.not_ready())
        if reasons:
            # Reasons speak of all bridges, and of the rules of others there.
            told: dict[str, Json] = {"reasons": reasons} if self.is_for_administrator(req) else {"count": len(reasons)}
            problems.send(req, resp, UnavailableError("not every bridge is connected and in step"), **told)
        else:
            _send(resp, {"status": "ready"})


ROUTES: tuple[tuple[str, type[Resource]], ...] = (
    ("/v1/routers", Routers),
    ("/v1/routers/{router}", OneRouter),
    ("/v1/routers/{router}/flows", Flows),
    ("/v1/routers/{router}/session", OneSession),
    ("/v1/routers/{router}/nexthops", Nexthops),
    ("/v1/routers/{router}/interfaces/{interface}", OneInterface),
    ("/v1/bridges", Bridges),
    ("/v1/rules", Rules),
    ("/v1/orphans", Orphans),
    ("/v1/walk", Walk),
    ("/healthz", Health),
    ("/readyz", Readiness),
)


def _summary(result: WriteResult) -> str:
    counts = f"+{result.added} ~{result.changed} -{result.removed} ={result.unchanged}"
    return f"revision {result.revision}, {counts}, {len(result.failed)} failed"


def _send(resp: falcon.Response, value: Json) -> None:
    resp.content_type = JSON_TYPE
    resp.text = dumps(value)


def _stream(
    resp: falcon.Response, head: dict[str, Json], name: str, values: Iterator[Json], ended: Callable[[], None] | None
) -> None:
    """Answer `head` with one more member, a long array that is written in pieces; `ended` is called at its end.

    The first batch is read here, so that an error at the beginning still becomes an error answer.
    """
    pieces = Pieces(_pieces(dumps(head)[:-1] + f',"{name}":[', _batches(values)), ended or (lambda: None))
    pieces.read_ahead(2)
    resp.content_type = JSON_TYPE
    resp.stream = pieces


def _batches(values: Iterator[Json]) -> Iterator[list[Json]]:
    while batch := list(islice(values, _BATCH)):
        yield batch


def _pieces(opening: str, batches: Iterable[list[Json]]) -> Iterator[bytes]:
    separator = ""
    yield opening.encode()
    for batch in batches:
        if batch:
            yield (separator + ",".join(map(dumps, batch))).encode()
            separator = ","
    yield b"]}\n"
