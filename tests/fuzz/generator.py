"""Requests at random: well-formed ones, and what an attacker makes of them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from .books import Flow
from .host import NEXT_HOPS

ODD: list[Any] = [
    None, True, -1, 0, 1.5, 10**30, "", "x" * 300, [], {}, [[]], {"a": {"b": []}}, "\u0000", "ü", "10.0.0.1/33", "::/0",
]  # fmt: skip
WORDS = ["match", "in", "ipv4_dst", "action", "set", "eth_dst", "out", "flows", "add", "remove", "eth_src", "reasons", "lease"]
RAW = [
    b"NaN", b"1e400", b"-Infinity", b"[" * 5000, b'{"a":1,"a":2}', b"\xff\xfe", b"9" * 400, b"\\u0000",
    b'"' + b"x" * 70_000 + b'"', b"",
]  # fmt: skip
PATHS = [
    "/v1/routers/{r}/flows", "/v1/routers/{r}/session", "/v1/routers/{r}/nexthops", "/v1/routers/{r}/interfaces/eth0",
    "/v1/routers/{r}", "/v1/routers", "/v1/bridges", "/v1/rules", "/v1/orphans", "/v1/walk", "/healthz", "/readyz", "/x",
]  # fmt: skip
PAGES = ["?limit=2", "?limit=0", "?limit=1&after=W10", "?after=x", "?limit=1&after=WyJldGgwIiw0LG51bGwsNV0", "?bridge=b0&limit=9"]
METHODS = ["GET", "PUT", "PATCH", "DELETE", "POST", "HEAD", "OPTIONS", "TRACE"]


@dataclass
class Request:
    """`sure` is the change that it makes if it is accepted; None: it is not to be accepted, or changes no table.

    `is_foreign`: whoever sends it has no right to, so it is refused whatever it says.
    """

    method: str
    path: str
    token: str
    body: bytes = b""
    sure: tuple[str, list[Flow], list[Flow]] | None = None
    is_foreign: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class Generator:
    """Seeded; each router's prefixes are its own, so that they show where they do not belong.

    Of `routers`, those of `own` are written to; the others are somebody else's.
    """

    def __init__(self, rng: random.Random, routers: tuple[str, ...], own: tuple[str, ...]) -> None:
        self._rng, self.routers, self._own = rng, routers, own

    def marker(self, router: str) -> str:
        """What stands in all of a router's destinations."""
        return f"10.{101 + self.routers.index(router)}."

    def next(self) -> Request:
        rng = self._rng
        router = rng.choice(self._own)
        kinds = (self._write, self._mutated, self._other, self._foreign)
        return rng.choices(kinds, weights=(40, 35, 15, 10))[0](router)

    def _flow(self, router: str) -> Flow:
        rng = self._rng
        length = rng.choice((24, 28, 32))
        host = rng.randrange(1 << 16) >> (32 - length) << (32 - length)
        flow: Flow = {"match": {"in": "eth0", "ipv4_dst": f"{self.marker(router)}{host >> 8}.{host & 255}/{length}"}}
        if rng.random() < 0.1:
            flow["match"]["eth_src"] = f"02:00:00:00:20:0{rng.randrange(3)}"
        if rng.random() < 0.8:
            return flow | {"action": "forward", "set": {"eth_dst": rng.choice(NEXT_HOPS)}, "out": "eth1"}
        return flow | {"action": rng.choice(("punt", "drop"))}

    def _flows(self, router: str, most: int) -> list[Flow]:
        found = {json.dumps(f["match"]): f for f in (self._flow(router) for _ in range(self._rng.randrange(most)))}
        return list(found.values())

    def _write(self, router: str) -> Request:
        rng, path = self._rng, f"/v1/routers/{router}/flows"
        wait = rng.choice(("", *["?wait=no"] * 9))
        kind = rng.random()
        if kind < 0.05:
            move = {"out": "eth1", "eth_dst": rng.choice(NEXT_HOPS), "new_eth_dst": rng.choice(NEXT_HOPS)}
            return Request("PATCH", f"/v1/routers/{router}/nexthops{wait}", router, _json(move), ("move", [move], []))
        if kind < 0.2:
            flows = self._flows(router, 30)
            return Request("PUT", path + wait, router, _json({"flows": flows}), ("put", flows, []))
        if kind < 0.27:
            return Request("DELETE", path + wait, router, b"", ("put", [], []))
        add, remove = self._flows(router, 8), self._flows(router, 4)
        body = {"add": add, "remove": [f["match"] for f in remove]}
        if {json.dumps(f["match"]) for f in add} & {json.dumps(f["match"]) for f in remove}:
            body["remove"], remove = [], []
        return Request("PATCH", path + wait, router, _json(body), ("patch", add, remove))

    def _mutated(self, router: str) -> Request:
        """A write with something wrong in it, or perhaps only odd."""
        rng, request = self._rng, self._write(router)
        body = bytearray(request.body or b"{}")
        request.sure = None
        if rng.random() < 0.5:
            value = json.loads(body)
            self._spoil(value)
            request.body = _json(value)
        else:
            for _ in range(rng.randrange(1, 4)):
                at = rng.randrange(len(body) + 1)
                body[at : at + rng.randrange(4)] = rng.choice(RAW)
            request.body = bytes(body)
        return request

    def _spoil(self, value: Any) -> None:
        """Change one thing somewhere inside."""
        rng = self._rng
        while True:
            if isinstance(value, dict) and value:
                key = rng.choice(list(value))
                if rng.random() < 0.4 or not isinstance(value[key], dict | list) or not value[key]:
                    if rng.random() < 0.3:
                        value[rng.choice(WORDS)] = value.pop(key)
                    else:
                        value[key] = rng.choice(ODD)
                    return
                value = value[key]
            elif isinstance(value, list) and value:
                at = rng.randrange(len(value))
                if rng.random() < 0.3 or not isinstance(value[at], dict | list):
                    value[at] = rng.choice(ODD)
                    return
                value = value[at]
            else:
                return

    def _other(self, router: str) -> Request:
        rng = self._rng
        method, path = rng.choice(METHODS), rng.choice(PATHS).format(r=rng.choice((*self.routers, "nobody", "%00", "ü")))
        if method in ("DELETE", "PUT", "PATCH") and path.endswith(("flows", "nexthops", "eth0", "session")):
            method = "GET"
        path += rng.choice(("", "", "?x=1", "?wait=maybe", "?state=installed", "?seq=-1", "?session=%ff", *PAGES))
        body = rng.choice((b"", _json(rng.choice(ODD)), rng.choice(RAW)))
        return Request(method, path.encode("ascii", "replace").decode(), rng.choice((router, "admin", "")), body)

    def _foreign(self, router: str) -> Request:
        """With somebody else's token, none, or a wrong one; or with one's own to somebody else's table."""
        request = self._write(router)
        request.sure, request.is_foreign = None, True
        other = self._rng.choice([r for r in self.routers if r != router])
        if self._rng.random() < 0.3:
            request.path = request.path.replace(f"/{router}/", f"/{other}/")
        else:
            request.token = self._rng.choice((other, "", "wrong"))
        return request


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
