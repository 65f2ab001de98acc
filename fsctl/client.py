"""The REST client, shared by the command line and the agent.

Answers are JSON as docs/rest.md shows it; a problem+json answer becomes the exception of `fsctl.errors` that it
was on the server. Reads are repeated when the connection fails; writes are not: that is for the caller to decide.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NotRequired, TypedDict, cast
from urllib.parse import quote, urlsplit

import urllib3
from urllib3.util import Retry, Timeout

from fsctl.errors import ConfigError, FsctlError, InvalidError, StoreError, SwitchError, UnavailableError, UnsyncedError

Json = dict[str, Any]
DEFAULT_URL = "http://127.0.0.1:8080"
PROBLEM_PREFIX = "urn:fsctl:problem:"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
"""More than the server waits (30 s), so that its answer comes first."""
PAGE = 5000
"""Flows that are read with one request."""


class UnreachableError(UnavailableError):
    """No fsctl answers at the URL."""


class WriteFailure(TypedDict):
    """A flow whose rule a switch rejected."""

    match: Json
    bridge: str
    error: str


class WriteAnswer(TypedDict):
    """What a write did.

    `waiting_for` names bridges that have not confirmed; `stored` is false for a withdrawal that is still to be stored.
    """

    revision: int
    added: int
    changed: int
    removed: int
    unchanged: int
    failed: list[WriteFailure]
    waiting_for: list[str]
    stored: bool
    warnings: NotRequired[list[str]]
    not_bypassed: NotRequired[list[Json]]


class _UnixConnection(urllib3.connection.HTTPConnection):
    """HTTP over a unix socket."""

    path = ""

    def _new_conn(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(CONNECT_TIMEOUT_S)
            connection.connect(self.path)
        except OSError as e:
            connection.close()
            raise urllib3.exceptions.NewConnectionError(self, f"{self.path}: {e.strerror}") from e
        return connection


class _UnixPool(urllib3.HTTPConnectionPool):
    """Connections to one unix socket."""

    def __init__(self, path: str, timeout: Timeout) -> None:
        super().__init__("localhost", timeout=timeout)
        self.ConnectionCls = type("Connection", (_UnixConnection,), {"path": path})


class Client:
    """One fsctl, reached at `url` with a router's or the administrator's `token`.

    `url` may be that of the administrator's socket, unix:/PATH, which needs no token. `ca_file`: a PEM file to check the
    server's certificate with, beside https. All methods raise the errors of `fsctl.errors`, `UnreachableError` if fsctl
    cannot be reached.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        ca_file: str | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        parts = urlsplit(url)
        is_local = parts.scheme == "unix" and parts.path.startswith("/")
        if not is_local and (parts.scheme not in ("http", "https") or not parts.netloc):
            raise InvalidError("expected http://HOST:PORT, https://HOST:PORT or unix:/PATH", field="url", value=url)
        self.url = url.rstrip("/")
        self._base = "" if is_local else self.url
        self._headers = {"Accept": "application/json, application/problem+json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        options: dict[str, Any] = {"ca_certs": ca_file} if ca_file else {}
        timeout = Timeout(connect=CONNECT_TIMEOUT_S, read=timeout_s)
        self._pool: urllib3.PoolManager | _UnixPool = (
            _UnixPool(parts.path, timeout) if is_local else urllib3.PoolManager(timeout=timeout, **options)
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connections."""
        if isinstance(self._pool, _UnixPool):
            self._pool.close()
        else:
            self._pool.clear()

    # --- routers and their flows ----------------------------------------------------------------------

    def routers(self) -> list[Json]:
        """All routers; with a router's token that one."""
        return list(self._get("/v1/routers")["routers"])

    def router(self, router: str) -> Json:
        return self._get(_path("v1", "routers", router))

    def flows(self, router: str, state: str | None = None) -> list[Json]:
        """The router's flows with their status; `state` picks installed, slow_path or refused ones."""
        return list(self.each_flow(router, state))

    def each_flow(self, router: str, state: str | None = None, page: int = PAGE) -> Iterator[Json]:
        """The same, page by page: the order is stable, and a flow that stays is given once, whatever changes meanwhile."""
        return self._pages(_flows(router), "flows", {} if state is None else {"state": state}, page)

    def _pages(self, path: str, name: str, given: Mapping[str, str], page: int) -> Iterator[Json]:
        query = {"limit": str(page), **given}
        while True:
            answer = self._get(path, query)
            yield from answer[name]
            if answer["next"] is None:
                return
            query["after"] = answer["next"]

    def put_flows(self, router: str, flows: Sequence[Mapping[str, Any]], *, wait: bool = True) -> WriteAnswer:
        """Replace the router's whole FIB. Without `wait`: do not wait for the switches."""
        return self._write("PUT", _flows(router), {"flows": list(flows)}, wait)

    def patch_flows(
        self,
        router: str,
        add: Sequence[Mapping[str, Any]] = (),
        remove: Sequence[Mapping[str, Any]] = (),
        *,
        wait: bool = True,
    ) -> WriteAnswer:
        """Set the flows in `add`, remove those whose matches are in `remove`, at once."""
        return self._write("PATCH", _flows(router), {"add": list(add), "remove": list(remove)}, wait)

    def delete_flows(self, router: str, *, wait: bool = True) -> WriteAnswer:
        """Remove all flows of the router."""
        return self._write("DELETE", _flows(router), None, wait)

    def change_interface(
        self,
        router: str,
        interface: str,
        *,
        addresses: Sequence[str] | None = None,
        mtu: int | None = None,
        clear: Collection[str] = (),
        wait: bool = True,
    ) -> WriteAnswer:
        """Say which addresses (10.0.1.254/24) and which MTU an interface has; None leaves a value as it is.

        `clear` names values ("addresses", "mtu") that shall be the configuration's again.
        """
        values: Json = {"addresses": addresses, "mtu": mtu}
        body = {name: value for name, value in values.items() if value is not None or name in clear}
        return self._write("PATCH", _path("v1", "routers", router, "interfaces", interface), body, wait)

    def move_nexthop(self, router: str, out: str, eth_dst: str, new_eth_dst: str, *, wait: bool = True) -> WriteAnswer:
        """The neighbour behind interface `out` has another MAC address: all flows that use it follow at once."""
        body = {"out": out, "eth_dst": eth_dst, "new_eth_dst": new_eth_dst}
        return self._write("PATCH", _path("v1", "routers", router, "nexthops"), body, wait)

    # --- what the administrator may ask ---------------------------------------------------------------

    def bridges(self) -> list[Json]:
        return list(self._get("/v1/bridges")["bridges"])

    def notices(self) -> list[str]:
        """What an operator has to know that is about no configured bridge."""
        return list(self._get("/v1/bridges")["notices"])

    def rules(self, bridge: str | None = None, page: int = PAGE) -> list[Json]:
        """The installed rules of the flow switch, all or one bridge's; read page by page."""
        return list(self._pages("/v1/rules", "rules", {} if bridge is None else {"bridge": bridge}, page))

    def orphans(self, *, with_flows: bool = True) -> list[Json]:
        """Delegations kept aside, since the configuration no longer has their router or interface."""
        return list(self._get("/v1/orphans", {} if with_flows else {"flows": "no"})["orphans"])

    def forget_router(self, router: str) -> None:
        """Delete what is kept aside of a router; raises NotFoundError if there is nothing."""
        self.call("DELETE", "/v1/orphans", query={"router": router})

    def walk(self, packet: Mapping[str, Any]) -> Json:
        """Explain what happens to a packet."""
        return self.call("POST", "/v1/walk", packet)

    # --- everybody ------------------------------------------------------------------------------------

    def is_alive(self) -> bool:
        """Whether fsctl answers at all; raises UnreachableError where not."""
        return bool(self._get("/healthz")["status"] == "ok")

    def not_ready(self) -> list[str]:
        """Why fsctl is not ready; empty if it is."""
        response = self._send("GET", "/readyz", None, {})
        if response.status == UnavailableError.status:
            return [str(reason) for reason in _json(response).get("reasons", ["not ready"])]
        _raise_for(response)
        return []

    # --- transport ------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None) -> Json:
        """Any call by its path; the JSON object that it answers. `body` is a value, or bytes that are JSON already."""
        response = self._send(method, path, body, query or {})
        _raise_for(response)
        return _json(response)

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        return self.call("GET", path, None, query)

    def _write(self, method: str, path: str, body: Any, wait: bool) -> WriteAnswer:
        return cast(WriteAnswer, self.call(method, path, body, {} if wait else {"wait": "no"}))

    def _send(self, method: str, path: str, body: Any, query: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        query_text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        url = f"{self._base}{path}{'?' + query_text if query_text else ''}"
        tries = 2 if method == "GET" else 0
        retries = Retry(connect=tries, read=tries, status=0, redirect=0, other=0, backoff_factor=0.2)
        headers, data = dict(self._headers), None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
        try:
            return self._pool.request(method, url, body=data, headers=headers, retries=retries)
        except (urllib3.exceptions.HTTPError, OSError) as e:
            cause = getattr(e, "reason", None) or e
            raise UnreachableError(f"no answer from {self.url}: {_words(cause)}") from e


def _path(*segments: str) -> str:
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


def _flows(router: str) -> str:
    return _path("v1", "routers", router, "flows")


def _words(cause: object) -> str:
    """urllib3 puts objects before its words: `HTTPConnection(host=..., port=...): Failed to ...`."""
    return str(cause).rpartition(">: ")[2].rpartition("): ")[2]


def _json(response: urllib3.BaseHTTPResponse) -> Json:
    try:
        value = json.loads(response.data)
    except ValueError as e:
        raise UnreachableError(f"the answer is not fsctl's: status {response.status}, no JSON") from e
    if not isinstance(value, dict):
        raise UnreachableError(f"the answer is not fsctl's: status {response.status}, no JSON object")
    return value


def _raise_for(response: urllib3.BaseHTTPResponse) -> None:
    """Raise what an answer other than 2xx says."""
    if response.status in range(200, 300):
        return
    problem = _json(response)
    slug = str(problem.get("type", "")).removeprefix(PROBLEM_PREFIX)
    detail = str(problem.get("detail") or problem.get("title") or f"status {response.status}")
    known = _BY_SLUG.get(slug) or _BY_STATUS.get(response.status, FsctlError)
    raise known(detail, field=problem.get("field"), value=problem.get("value"))


def _kinds(root: type[FsctlError]) -> Iterator[type[FsctlError]]:
    """All errors that can come over the wire: those that are made of detail, field and value alone."""
    yield root
    for kind in root.__subclasses__():
        if kind not in (ConfigError, SwitchError, UnreachableError):
            yield from _kinds(kind)


_BY_SLUG = {kind.slug: kind for kind in _kinds(FsctlError)}
_BY_STATUS = {kind.status: kind for kind in _kinds(FsctlError) if kind not in (FsctlError, StoreError, UnsyncedError)}
