"""What the contract is tried on: the agent's fake, the REST stand-in, and the real controller, each behind one `call`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Protocol

import falcon.testing

from fsctl.errors import FsctlError
from fsctl.northbound import Auth, make_app
from fsctl.runtime import Threads
from fsctl.schema.answers import problem_json
from tests.agent.fake import FakeFsctl, a_router
from tests.rest.conftest import digest
from tests.rest.fake import FakeBackend
from tests.unit.paper import Lab

Answer = tuple[int, dict[str, Any]]


class Target(Protocol):
    """An fsctl with one router whose interfaces are eth0 and eth1, both with an MTU of 1500."""

    def call(
        self, method: str, path: str = "", body: Any = None, query: Mapping[str, str] | None = None, *, is_admin: bool = False
    ) -> Answer:
        """Status and answer of a call under /v1/routers/ROUTER, with the router's or the administrator's token."""
        ...

    def pass_time(self, seconds: float) -> None:
        """Let leases run out."""
        ...

    def close(self) -> None: ...


class AgentsFake:
    """tests/agent/fake.py"""

    def __init__(self) -> None:
        self.now = 100.0
        router = a_router({"eth0": "02:00:00:00:01:01", "eth1": "02:00:00:00:01:02"})
        self.fake = FakeFsctl(router, lambda: self.now)

    def call(
        self, method: str, path: str = "", body: Any = None, query: Mapping[str, str] | None = None, *, is_admin: bool = False
    ) -> Answer:
        self.fake.is_admin = is_admin
        url = f"/v1/routers/{self.fake.router.name}{path}"
        try:
            answer = self.fake.handle(method, url, json.loads(json.dumps(body)), query or {})
        except FsctlError as e:
            return e.status, problem_json(e, url)
        return 200, json.loads(json.dumps(answer))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.fake.tick()

    def close(self) -> None:
        pass


class _OverRest:
    """What has the real REST in front."""

    router: str
    client: falcon.testing.TestClient

    def call(
        self, method: str, path: str = "", body: Any = None, query: Mapping[str, str] | None = None, *, is_admin: bool = False
    ) -> Answer:
        headers = {"Authorization": f"Bearer {'admin' if is_admin else self.router}-token"}
        url = path if path.startswith("/v1/") else f"/v1/routers/{self.router}{path}"
        more = {} if body is None else {"json": body}
        answer = self.client.simulate_request(method, url, params=dict(query or {}), headers=headers, **more)
        return answer.status_code, answer.json

    def auth(self) -> Auth:
        return Auth(digest("admin-token"), {self.router: digest(f"{self.router}-token")})


class RestStandIn(_OverRest):
    """tests/rest/fake.py"""

    router = "vr1"

    def __init__(self) -> None:
        self.backend = FakeBackend()
        self.client = falcon.testing.TestClient(make_app(self.backend, self.auth()))

    def pass_time(self, seconds: float) -> None:
        self.backend.now += seconds
        self.backend.tick()

    def close(self) -> None:
        pass


class MovedClock(Threads):
    """Threads, and a clock that can be put forward."""

    ahead = 0.0

    def now(self) -> float:
        return time.monotonic() + self.ahead


class RealController(_OverRest):
    """The real loop, store and REST; the switches are made of paper."""

    router = "r"

    def __init__(self) -> None:
        self.clock = MovedClock()
        self.lab = Lab(runtime=self.clock)
        self.lab.settle()
        self.client = falcon.testing.TestClient(make_app(self.lab.controller, self.auth(), patience_s=10))

    def pass_time(self, seconds: float) -> None:
        self.clock.ahead += seconds
        for _ in range(2):  # the loop looks at the leases after the first, and withdraws before the second
            self.lab.write("s")

    def close(self) -> None:
        self.lab.stop()


TARGETS = {"agent's fake": AgentsFake, "REST stand-in": RestStandIn, "controller": RealController}
