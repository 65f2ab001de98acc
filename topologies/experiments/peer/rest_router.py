"""`ryu.app.rest_router`: a switch is a router, told over REST one address or route at a time.

One process per router, as with Faucet: more of them use more processors, and a router's tables are its own anyhow.
"""

from __future__ import annotations

import http.client
import json
import re
import tempfile
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

from topologies.control import free_port
from topologies.experiments.peer import chain
from topologies.experiments.peer.contender import (
    CHANGE_LIMIT_S,
    RESTART_LIMIT_S,
    Contender,
    Installed,
    RefusedError,
    Restarted,
    waited,
)
from topologies.experiments.peer.environment import REST_ROUTER, environ, python_of
from topologies.experiments.peer.ground import PREFIXES, Ground
from topologies.experiments.rig import OTHER_HOST_MAC, mac, prefix
from topologies.processes import Daemon, LabError, spawn

START_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_S = 60.0
LEARN_S = 1.0
QUIET = "30"
"""Log level WARNING: it would write lines for each route otherwise."""


class Rest:
    """One connection to a router's controller, kept open."""

    def __init__(self, port: int, router: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_TIMEOUT_S)
        self._path = f"/router/{router:016x}"

    def request(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The router's answer. LabError unless it is a success."""
        self._http.request(method, self._path, json.dumps(body).encode() if body else None)
        answer = self._http.getresponse()
        data = answer.read()
        if answer.status != HTTPStatus.OK:
            raise LabError(f"{method} {body}: {answer.status} {data.decode(errors='replace')}")
        found: dict[str, Any] = json.loads(data)[0]
        if any(result.get("result") != "success" for result in found.get("command_result", [])):
            raise RefusedError(f"{method} {body}: {found['command_result']}")
        return found

    def address(self, address: str) -> None:
        self.request("POST", {"address": address})

    def add(self, destination: str, by: str) -> int:
        """Adds a route; its number."""
        result = self.request("POST", {"destination": destination, "gateway": by})["command_result"][0]
        found = re.search(r"route_id=(\d+)", result["details"])
        if found is None:
            raise LabError(f"no route_id in {result}")
        return int(found[1])

    def delete(self, number: int) -> None:
        self.request("DELETE", {"route_id": number})

    def routes(self) -> int:
        """How many it has whose gateway has answered."""
        return sum(len(part.get("route", [])) for part in self.request("GET")["internal_network"])

    def close(self) -> None:
        self._http.close()


class OneRouter(Daemon):
    """The process of one router."""

    def __init__(self, python: Path, log: Path, router: int) -> None:
        super().__init__()
        self._python, self._log, self.router = python, log, router
        self.openflow_port, self._rest_port = free_port("127.0.0.1"), free_port("127.0.0.1")
        self.ids: dict[int, int] = {}
        """Route number by prefix number."""

    def start(self) -> None:
        command = [str(self._python), "-m", "ryu.cmd.manager", "--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port",
                   str(self.openflow_port), "--wsapi-host", "127.0.0.1", "--wsapi-port", str(self._rest_port),
                   "--default-log-level", QUIET, "ryu.app.rest_router"]  # fmt: skip
        self._process = spawn(command, self._log, environ(REST_ROUTER))

    def rest(self) -> Rest:
        return Rest(self._rest_port, self.router)

    def joined(self) -> bool:
        """Whether its switch is connected."""
        rest = self.rest()
        try:
            rest.request("GET")
        except (OSError, http.client.HTTPException, ValueError, LabError):
            return False
        finally:
            rest.close()
        return True

    def post(self, count: int, by: str, deadline: float) -> None:
        """A route for each prefix, one request each, until the deadline."""
        rest = self.rest()
        try:
            for number in range(count):
                if time.monotonic() > deadline:
                    return
                self.ids[number] = rest.add(prefix(number), by)
        finally:
            rest.close()

    def log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])


class RestRouter(Contender):
    """Its switches keep their rules in fail mode secure; what they mean is in the controllers' memory alone."""

    name = "rest_router"

    def _open(self) -> None:
        python = python_of(REST_ROUTER)
        self.ground = self._stack.enter_context(Ground(chain.bridges(self.routers), self.routers))
        chain.join(self.ground)
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fsctl-peer-")))
        self._ones: list[OneRouter] = []
        for router, bridge in enumerate(self.ground.bridges, 1):
            one = OneRouter(python, directory / f"{bridge}.log", router)
            self._stack.callback(one.stop)
            self._ones.append(one)
            one.start()
            chain.connect(self.ground, bridge, one.openflow_port)
        self._wait_for_switches(START_TIMEOUT_S)
        for one in self._ones:
            rest = one.rest()
            for side in (chain.BEFORE, chain.BEHIND):
                rest.address(f"{chain.address(one.router, side)}/24")
            rest.close()

    def _wait_for_switches(self, limit_s: float) -> float:
        took = waited(lambda: all(one.joined() for one in self._ones), limit_s)
        if took is None:
            raise LabError("rest_router has no switches: " + "\n".join(one.log_tail() for one in self._ones))
        return took

    @property
    def pids(self) -> list[int]:
        return [one.pid for one in self._ones]

    @property
    def entry_mac(self) -> str:
        return mac(1, 0)  # any would do: it does not look at MAC addresses

    def forwarding(self) -> int:
        """Rules that forward; until the gateway has answered ARP, a route's rule is there but leads to the controller."""
        return self.ground.count(f"{PREFIXES},out_port={chain.BEHIND}")

    def install(self, count: int) -> Installed:
        start = time.monotonic()
        deadline = start + self.limit_s
        errors: list[Exception] = []

        def post(one: OneRouter) -> None:
            try:
                one.post(count, chain.gateway(one.router, self.routers), deadline)
            except (OSError, http.client.HTTPException, LabError) as e:
                errors.append(e)

        workers = [threading.Thread(target=post, args=(one,)) for one in self._ones]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if errors:
            raise LabError(f"rest_router: {errors[0]}") from errors[0]
        wanted = self.routers * count
        waited(lambda: self.forwarding() >= wanted, max(0.0, deadline - time.monotonic()))
        return Installed(time.monotonic() - start, self.forwarding(), wanted)

    def change(self, number: int) -> float | None:
        """There is no changing: the route is deleted, and another one added."""
        last, bridge = self._ones[-1], self.ground.bridges[-1]
        rest = last.rest()
        start = time.monotonic()
        try:
            rest.delete(last.ids[number])
            last.ids[number] = rest.add(prefix(number), chain.other_gateway(self.routers))
        finally:
            rest.close()
        if waited(lambda: OTHER_HOST_MAC in self.ground.rules_for(bridge, prefix(number)), CHANGE_LIMIT_S, 0.001) is None:
            return None
        return time.monotonic() - start

    def restart(self) -> Restarted:
        """Ready is when the switches are there again; a moment later it is asked what it knows."""
        fewest = self.rules()
        for one in self._ones:
            one.stop()
        start = time.monotonic()
        for one in self._ones:
            one.start()
        self._wait_for_switches(RESTART_LIMIT_S)
        took = time.monotonic() - start
        time.sleep(LEARN_S)
        knows = 0
        for one in self._ones:
            rest = one.rest()
            knows += rest.routes()
            rest.close()
        return Restarted(took, min(fewest, self.rules()), knows)
