"""Requests at random: 0 hangs, 0 crashes, 0 answers of 500, 0 half-applied writes, nobody's data to another.

FSCTL_FUZZ_REQUESTS says how many, FSCTL_FUZZ_SECONDS for how long at most, FSCTL_FUZZ_SEED replays one.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from typing import Any

import pytest
import urllib3

from tests.faults.host import Host

from .books import Books
from .generator import Generator, Request

REQUESTS = int(os.environ.get("FSCTL_FUZZ_REQUESTS", "1000000"))
SECONDS = float(os.environ.get("FSCTL_FUZZ_SECONDS", "10"))
SEED = int(os.environ.get("FSCTL_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 30)
HANG_S = 30.0
LOOKED_AT = 0.2
"""Which part of the refused requests is followed by a look at the router's table; accepted ones all are."""


def strict(data: bytes) -> Any:
    def refuse(name: str) -> Any:
        raise ValueError(name)

    return json.loads(data, parse_constant=refuse)


class Fuzz:
    """One run."""

    def __init__(self, host: Host, rng: random.Random) -> None:
        self.host, self.rng = host, rng
        tokens = {name: token for name, token in host.control.tokens.items() if name in ("admin", "r1", "r2")}
        self.tokens = tokens | {"wrong": "0" * 40}
        self.generator = Generator(rng, tokens)
        self.books = Books(self.generator.routers)
        self.pool = urllib3.PoolManager(timeout=HANG_S, retries=False)
        self.seen: Counter[int] = Counter()

    def send(self, request: Request) -> urllib3.BaseHTTPResponse:
        headers = {"Content-Type": "application/json", **request.headers}
        if request.token:
            headers["Authorization"] = f"Bearer {self.tokens[request.token]}"
        url = self.host.control.url + request.path
        return self.pool.request(request.method, url, body=request.body or None, headers=headers)

    def one(self) -> str:
        """Send one request; what was wrong with its answer, or with what it did."""
        request = self.generator.next()
        try:
            answer = self.send(request)
        except urllib3.exceptions.HTTPError as e:
            return f"no answer: {e!r}: {describe(request)}"
        self.seen[answer.status] += 1
        problem = self._problem(request, answer)
        if problem:
            return f"{problem}: {describe(request)} -> {answer.status} {answer.data[:300]!r}"
        router = request.path.split("/")[3].partition("?")[0] if request.path.count("/") > 2 else ""
        if answer.status in (200, 202) and request.method in ("PUT", "PATCH", "DELETE") and router in self.books.tables:
            return self._accepted(request, router)
        if self.rng.random() < LOOKED_AT and router in self.books.tables:
            difference = self._difference(router)
            return f"a refused request changed something: {difference}: {describe(request)}" if difference else ""
        return ""

    def _accepted(self, request: Request, router: str) -> str:
        """A write was accepted: the books follow what it says, whether it was meant to be well-formed or not."""
        if request.sure is not None:
            kind, add, remove = request.sure
        elif request.method == "DELETE":
            kind, add, remove = "put", [], []
        else:
            body = strict(request.body)
            kind = "put" if request.method == "PUT" else "patch"
            add = body.get("flows", body.get("add", []))
            remove = [{"match": match, "action": "punt"} for match in body.get("remove", [])]
        if kind == "put":
            self.books.put(router, add)
        else:
            self.books.patch(router, add, remove)
        difference = self._difference(router)
        return f"a write did not do what it says: {difference}: {describe(request)}" if difference else ""

    def _difference(self, router: str) -> str:
        answer = self.send(Request("GET", f"/v1/routers/{router}/flows", "admin"))
        return self.books.difference(router, strict(answer.data)["flows"])

    def _problem(self, request: Request, answer: urllib3.BaseHTTPResponse) -> str:
        if answer.status >= 500 and answer.status != 503:
            return "an answer of 500"
        if request.sure is not None and answer.status not in (200, 202, 413, 429, 503):
            return "a well-formed write was refused"
        if request.token not in ("admin",) and self._tells_of_others(request, answer):
            return "it tells of another router"
        if request.method == "HEAD" or not answer.data:
            return ""
        try:
            body = strict(answer.data)
        except ValueError as e:
            return f"no strict JSON ({e})"
        if answer.status >= 400 and not {"type", "title", "status", "detail"} <= body.keys():
            return "no problem+json"
        return ""

    def _tells_of_others(self, request: Request, answer: urllib3.BaseHTTPResponse) -> bool:
        others = [r for r in self.generator.routers if r != request.token]
        said = request.body.decode("latin-1") + request.path
        return any(self.generator.marker(r) in answer.data.decode() and self.generator.marker(r) not in said for r in others)


def describe(request: Request) -> str:
    return f"{request.method} {request.path} by {request.token or 'nobody'} {request.body[:400]!r}"


@pytest.mark.timeout(SECONDS + 120)
def test_requests_at_random(host: Host) -> None:
    fuzz = Fuzz(host, random.Random(SEED))
    ends, count = time.monotonic() + SECONDS, 0
    while count < REQUESTS and time.monotonic() < ends:
        count += 1
        wrong = fuzz.one()
        assert not wrong, f"FSCTL_FUZZ_SEED={SEED}, request {count}: {wrong}"
    print(f"{count} requests, seed {SEED}: {dict(sorted(fuzz.seen.items()))}")
    assert fuzz.seen[200] > 0
    assert host.client.call("GET", "/healthz") == {"status": "ok"}
