"""fsctl as the agent sees it, in memory: sessions with leases (docs/agent.md), a FIB, a log of calls.

`FakeFsctl.handle` is pure but for its clock; `Http` serves it on a real socket.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fsctl.errors import (
    ConflictError,
    FsctlError,
    MalformedError,
    NotFoundError,
    UnauthorizedError,
    UnsyncedError,
)
from fsctl.model.addresses import parse_mac
from fsctl.model.fib import Fib, change_of, match_of_change
from fsctl.model.network import Interface, Router
from fsctl.schema.answers import flow_status_json, router_json
from fsctl.schema.bodies import read_interface_change, read_patch, read_replacement
from fsctl.status import FlowStatus, Override, Write


@dataclass
class Session:
    id: str
    lease: float
    grace: float
    reasons: list[Any]
    beat: float
    synced: bool = False
    seq: int = 0


@dataclass
class FakeFsctl:
    """One router. `clock` gives seconds."""

    router: Router
    clock: Callable[[], float]
    token: str = "secret"
    fib: Fib = field(default_factory=Fib)
    session: Session | None = None
    log: list[tuple[str, str, int]] = field(default_factory=list)
    """(method, last part of the path, flows in the body) of every call that was carried out."""
    announced: dict[str, Any] = field(default_factory=dict)
    said: dict[str, Override] = field(default_factory=dict)
    revision: int = 0
    is_admin: bool = False
    """Calls without a session are the administrator's."""
    refuse: Callable[[str, str], FsctlError | None] = lambda _method, _path: None
    takes_s: Callable[[str, str], float] = lambda _method, _path: 0.0
    """How long a call of this method and path takes, while others are answered."""

    def tick(self) -> None:
        """Leases end by themselves: the FIB is withdrawn, after the grace."""
        s = self.session
        if s is not None and self.clock() > s.beat + s.lease + s.grace:
            self.fib, self.session = Fib(), None

    def handle(self, method: str, path: str, body: Any, query: Mapping[str, str]) -> dict[str, Any]:
        """Carry one call out; raises FsctlError."""
        self.tick()
        error = self.refuse(method, path)
        if error is not None:
            raise error
        parts = path.strip("/").split("/")
        if parts[:2] != ["v1", "routers"] or len(parts) < 3 or parts[2] != self.router.name:
            raise NotFoundError("no such router", field="router", value=path)
        rest = parts[3:]
        if rest == ["session"]:
            answer = self._session(method, body, query)
        elif rest == ["flows"]:
            answer = self._flows(method, body, query)
        elif rest[:1] == ["interfaces"] and method == "PATCH":
            answer = self._interface(rest[1], body, query)
        elif not rest and method == "GET":
            answer = self._router()
        else:
            raise NotFoundError("no such path", field="path", value=path)
        self.log.append((method, parts[-1], len(body.get("flows", body.get("add", []))) if isinstance(body, dict) else 0))
        return answer

    def _session(self, method: str, body: Any, query: Mapping[str, str]) -> dict[str, Any]:
        now, s = self.clock(), self.session
        if method == "DELETE":
            if s is None or s.id != query.get("session"):
                raise ConflictError("this is not the router's session", field="session", value=query.get("session"))
            answer = self._apply(Write(self.router.name, (), replace=True))
            self.session = None
            return answer
        if method != "PUT" or set(body) - {"seq"} != {"id", "lease", "graceful_restart", "reasons"}:
            raise MalformedError("bad session")
        if s is not None and s.id != body["id"]:
            if now <= s.beat + s.lease:
                raise ConflictError("another agent holds this router", field="id", value=body["id"])
            s = None  # in its grace: the FIB stays, the session is the newcomer's
        if s is None:
            s = self.session = Session(body["id"], 0, 0, [], now, seq=body.get("seq", 0))
        s.lease, s.grace, s.reasons, s.beat = body["lease"], body["graceful_restart"], body["reasons"], now
        return {"id": s.id, "lease": s.lease, "graceful_restart": s.grace, "synced": s.synced, "seq": s.seq}

    def _admit(self, query: Mapping[str, str], *, needs_sync: bool = False) -> Session | None:
        """The session that a write is of (None: nobody's); renews its lease."""
        s = self.session
        if "session" not in query:
            if s is not None and not self.is_admin and self.clock() <= s.beat + s.lease:
                raise ConflictError("an agent holds this router: its session is missing", field="session")
            return None
        if s is None or s.id != query["session"]:
            raise ConflictError("this is not the router's session", field="session", value=query["session"])
        if "seq" in query and int(query["seq"]) <= s.seq:
            raise ConflictError("a later write of this session was carried out already", field="seq", value=query["seq"])
        s.beat = self.clock()
        if needs_sync and not s.synced:
            raise UnsyncedError("this session has not sent its whole table since it was opened", field="session", value=s.id)
        return s

    def _carried_out(self, s: Session | None, query: Mapping[str, str], *, replaces: bool = False) -> None:
        if s is not None:
            s.seq, s.synced = int(query.get("seq", s.seq)), s.synced or replaces
        elif self.session is not None:
            self.session.synced = False

    def _interface(self, name: str, body: Any, query: Mapping[str, str]) -> dict[str, Any]:
        if name not in self.router.interfaces:
            raise NotFoundError("no such interface", field="interface", value=name)
        change = read_interface_change(self.router.name, name, body)
        session = self._admit(query)
        self.announced[name] = body
        before = self.said.get(name, Override())
        self.said[name] = before.after(change)
        self._carried_out(session, query)
        is_new = self._shown(name, before) != self._shown(name, self.said[name])
        self.revision += self.said[name] != before
        return self._result(changed=int(is_new), unchanged=int(not is_new))

    def _shown(self, name: str, override: Override) -> Interface:
        declared = self.router.interfaces[name]
        addresses = declared.addresses if override.addresses is None else override.addresses
        return replace(declared, mtu=override.mtu or declared.mtu, addresses=addresses)

    def _router(self) -> dict[str, Any]:
        interfaces = {name: self._shown(name, self.said.get(name, Override())) for name in self.router.interfaces}
        shown = router_json(replace(self.router, interfaces=interfaces), self.fib, None, self.said)
        s = self.session
        if s is not None:
            shown["session"] = {"id": s.id, "lease": s.lease, "graceful_restart": s.grace, "synced": s.synced, "seq": s.seq}
            shown["not_bypassed"] = s.reasons
        return shown

    def _flows(self, method: str, body: Any, query: Mapping[str, str]) -> dict[str, Any]:
        if method == "GET":
            found = [flow_status_json(FlowStatus(d, "installed", hops=1, packets=7, bytes=700)) for d in self.fib]
            return {"flows": found, "next": None}
        write = {
            "PUT": lambda: read_replacement(self.router, body),
            "PATCH": lambda: read_patch(self.router, body),
            "DELETE": lambda: Write(self.router.name, (), replace=True),
        }[method]()
        session = self._admit(query, needs_sync=not write.replace)
        answer = self._apply(write)
        self._carried_out(session, query, replaces=write.replace)
        return answer

    def _apply(self, write: Write) -> dict[str, Any]:
        """Carry a write out and count what it changes."""
        before = {d.match: d.verdict for d in self.fib}
        wanted = {match_of_change(change.part, change.key): change.verdict for change in write.changes}
        if write.replace:
            wanted |= dict.fromkeys(before.keys() - wanted.keys())
        counts = {"added": 0, "changed": 0, "removed": 0, "unchanged": 0}
        for match, verdict in wanted.items():
            old = before.get(match)
            counts["unchanged" if old == verdict else "added" if old is None else "changed" if verdict else "removed"] += 1
            self.fib.apply(change_of(match, verdict))
        self.revision += len(wanted) > counts["unchanged"]
        return self._result(**counts)

    def _result(self, **counts: int) -> dict[str, Any]:
        none = {"added": 0, "changed": 0, "removed": 0, "unchanged": 0}
        return {"revision": self.revision, **none, **counts, "failed": [], "waiting_for": [], "stored": True}


def a_router(macs: Mapping[str, str], name: str = "vr1") -> Router:
    interfaces = {i: Interface(name, i, f"br-{i}", f"port-{i}", parse_mac(mac)) for i, mac in macs.items()}
    return Router(name, interfaces)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one segment for headers and body, or Nagle and a delayed ACK make each answer 40 ms late
    fake: FakeFsctl
    lock: threading.Lock

    def _serve(self) -> None:
        url = urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.headers.get("Authorization") != f"Bearer {self.fake.token}":
                raise UnauthorizedError("no such token")
            time.sleep(self.fake.takes_s(self.command, url.path))
            with self.lock:
                answer, status = (
                    self.fake.handle(self.command, url.path, json.loads(data or b"null"), dict(parse_qsl(url.query))),
                    200,
                )
        except FsctlError as e:
            status = e.status
            answer = {"type": f"urn:fsctl:problem:{e.slug}", "detail": e.detail, "field": e.field, "value": e.value}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serving(fake: FakeFsctl, port: int = 0) -> Iterator[str]:
    """The fake on a real socket of the calling thread's network namespace; its URL."""
    handler = type("Handler", (_Handler,), {"fake": fake, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
