"""One client: sends requests at random for its routers, and judges each answer and what it did."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import urllib3

from .books import Books, Counts
from .generator import Generator, Request

HANG_S = 30.0
LOOKED_AT = 0.2
"""Which part of the refused requests is followed by a look at the router's table; accepted ones all are."""
PAGE = 5
COUNTS = ("added", "changed", "removed", "unchanged")
MOVE = ("out", "eth_dst", "new_eth_dst")


@dataclass
class Task:
    """What a client is to do. `tokens` by name, "admin" among them; `own` are its routers."""

    url: str
    tokens: dict[str, str]
    own: tuple[str, ...]
    seed: int
    requests: int
    seconds: float


@dataclass
class Outcome:
    """What came of it; `wrong` is empty if nothing was."""

    requests: int = 0
    looks: int = 0
    wrong: str = ""
    seen: Counter[int] = field(default_factory=Counter)


def strict(data: bytes) -> Any:
    """JSON without NaN and its like."""

    def refuse(name: str) -> Any:
        raise ValueError(name)

    return json.loads(data, parse_constant=refuse)


def has(text: str, marker: str) -> bool:
    """Whether an address begins with it; 10.10.105.16 does not begin with 10.105."""
    return re.search(rf"(?<![\d.]){re.escape(marker)}", text) is not None


def describe(request: Request) -> str:
    return f"{request.method} {request.path} by {request.token or 'nobody'} {request.body[:400]!r}"


def work(task: Task, others_failed: Event) -> tuple[Outcome, Books]:
    """Until all is sent, the time is over, or something is wrong here or with another client."""
    fuzz = Fuzz(task)
    outcome, ends = fuzz.outcome, time.monotonic() + task.seconds
    while outcome.requests < task.requests and time.monotonic() < ends and not others_failed.is_set():
        outcome.requests += 1
        wrong = fuzz.one()
        if wrong:
            outcome.wrong = f"seed {task.seed}, request {outcome.requests}: {wrong}"
            others_failed.set()
            break
    return outcome, fuzz.books


class Fuzz:
    """One run of one client."""

    def __init__(self, task: Task) -> None:
        self.task, self.rng, self.outcome = task, random.Random(task.seed), Outcome()
        routers = tuple(name for name in task.tokens if name != "admin")
        self.tokens = task.tokens | {"wrong": "0" * 40}
        self.generator = Generator(self.rng, routers, task.own)
        self.books = Books(task.own)
        self.pool = urllib3.PoolManager(timeout=HANG_S, retries=False)

    def send(self, request: Request) -> urllib3.BaseHTTPResponse:
        headers = {"Content-Type": "application/json", **request.headers}
        if request.token:
            headers["Authorization"] = f"Bearer {self.tokens[request.token]}"
        return self.pool.request(request.method, self.task.url + request.path, body=request.body or None, headers=headers)

    def one(self) -> str:
        """Send one request; what was wrong with its answer, or with what it did."""
        request = self.generator.next()
        try:
            answer = self.send(request)
            self.outcome.seen[answer.status] += 1
            problem = self._problem(request, answer)
            if problem:
                return f"{problem}: {describe(request)} -> {answer.status} {answer.data[:300]!r}"
            return self._effect(request, answer)
        except urllib3.exceptions.HTTPError as e:
            return f"no answer: {e!r}: {describe(request)}"

    def _effect(self, request: Request, answer: urllib3.BaseHTTPResponse) -> str:
        router = request.path.split("/")[3].partition("?")[0] if request.path.count("/") > 2 else ""
        if router not in self.books.tables:
            return ""
        wrong = difference = ""
        if answer.status in (200, 202) and request.method in ("PUT", "PATCH", "DELETE"):
            said, counts = strict(answer.data), self._write_down(request, router)
            if counts is not None and tuple(said[name] for name in COUNTS) != counts:
                wrong = f"a write counts wrongly, expected {counts} in {said}"
            difference = self.look(router)
        elif self.rng.random() < LOOKED_AT:
            difference = self.look(router)
        if difference:
            wrong = f"the table is not what was accepted: {difference}"
        return f"{wrong}: {describe(request)} -> {answer.status}" if wrong else ""

    def _write_down(self, request: Request, router: str) -> Counts | None:
        """A write was accepted: the books follow what it says, whether it was meant to be well-formed or not."""
        if "/nexthops" in request.path:
            self.books.move(router, *map(strict(request.body).get, MOVE))
            return None  # a next hop that is not used any more may still be known
        if request.sure is not None:
            kind, add, remove = request.sure
        elif request.method == "DELETE":
            kind, add, remove = "put", [], []
        else:
            body = strict(request.body)
            kind = "put" if request.method == "PUT" else "patch"
            add = body.get("flows", body.get("add", []))
            remove = [{"match": match, "action": "punt"} for match in body.get("remove", [])]
        return self.books.put(router, add) if kind == "put" else self.books.patch(router, add, remove)

    def look(self, router: str) -> str:
        """How the router's table differs from the books: seen by the administrator or the router, whole or by pages."""
        self.outcome.looks += 1
        token = self.rng.choice(("admin", router))
        path = f"/v1/routers/{router}/flows"
        if self.rng.random() < 0.9:
            return self._compare(router, [self._seen(path, token)])
        pages = [self._seen(f"{path}?limit={PAGE}", token)]
        while pages[-1].get("next"):
            pages.append(self._seen(f"{path}?limit={PAGE}&after={pages[-1]['next']}", token))
        return self._compare(router, pages)

    def _seen(self, path: str, token: str) -> Any:
        request = Request("GET", path, token)
        answer = self.send(request)
        if answer.status != 200 or (token != "admin" and self._tells_of_others(request, answer)):
            return {"wrong": f"{token} reads {path}: {answer.status} {answer.data[:300]!r}"}
        return strict(answer.data)

    def _compare(self, router: str, pages: list[Any]) -> str:
        wrong = [page["wrong"] for page in pages if "wrong" in page]
        return wrong[0] if wrong else self.books.difference(router, [flow for page in pages for flow in page["flows"]])

    def _problem(self, request: Request, answer: urllib3.BaseHTTPResponse) -> str:
        if answer.status >= 500 and answer.status != 503:
            return "an answer of 500"
        if request.sure is not None and answer.status not in (200, 202, 413, 429, 503):
            return "a well-formed write was refused"
        if request.is_foreign and answer.status not in (401, 403):
            return "somebody without the right was not refused"
        if request.token != "admin" and self._tells_of_others(request, answer):
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
        said, told = request.body.decode("latin-1") + request.path, answer.data.decode()
        return any(has(told, self.generator.marker(r)) and not has(said, self.generator.marker(r)) for r in others)
