"""A chain of routers without packets: dummy bridges on a private Open vSwitch, and the real controller beside them.

    host --- [b0] --- r1 --- [b1] --- r2 ... rN --- [bN] --- host

Every router delegates the same prefixes at eth0 towards its next router; the last one towards a host.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import threading
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from topologies.control import ADMIN, Control
from topologies.processes import LabError, Whole
from topologies.sandbox import Sandbox, flow_count

FIRST_PREFIX = int(IPv4Address("16.0.0.0"))
REST_TIMEOUT_S = 180.0
HOST_MAC = "02:00:00:ff:00:01"
OTHER_HOST_MAC = "02:00:00:ff:00:02"

Flow = dict[str, Any]


def mac(router: int, interface: int) -> str:
    """Interface 0 looks towards the chain's beginning."""
    return f"02:00:00:00:{router:02x}:{interface + 1:02x}"


def prefix(number: int) -> str:
    """The /24 number `number`."""
    return f"{IPv4Address(FIRST_PREFIX + (number << 8))}/24"


class Connection:
    """One HTTP connection, kept open, with bodies as ready bytes: what is timed is the controller."""

    def __init__(self, control: Control, caller: str = ADMIN) -> None:
        parts = urlsplit(control.url)
        assert parts.hostname is not None
        self._http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=REST_TIMEOUT_S)
        self._headers = {"Authorization": f"Bearer {control.tokens[caller]}", "Content-Type": "application/json"}

    def request(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The JSON answer; LabError if it is not a success."""
        self._http.request(method, path, body, self._headers)
        answer = self._http.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise LabError(f"{method} {path}: {answer.status} {data.decode(errors='replace')}")
        return json.loads(data)

    def close(self) -> None:
        self._http.close()


class Rig(Whole):
    """Bridges, controller and what to tell it. All errors are LabError or RuntimeError."""

    def __init__(self, routers: int) -> None:
        super().__init__()
        self.routers = routers
        self.bridges = [f"b{k}" for k in range(routers + 1)]

    def _open(self) -> None:
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fsctl-bench-")))
        self.ovs = self._switch()
        self.control = Control(self.directory, self._config(), "127.0.0.1", self.ovs)
        self._stack.callback(self.control.stop)
        self.control.start()
        self.connection = Connection(self.control)
        self._stack.callback(self.connection.close)

    def _switch(self) -> Sandbox:
        """An Open vSwitch with the routers' ports."""
        ovs = Sandbox()
        self._stack.callback(ovs.stop)
        ovs.start()
        for bridge in self.bridges:
            ovs.add_bridge(bridge, ports=3)
        return ovs

    def _config(self) -> dict[str, Any]:
        routers: dict[str, Any] = {}
        for k in range(1, self.routers + 1):
            here, there = self.bridges[k - 1], self.bridges[k]
            routers[f"r{k}"] = {
                "interfaces": {
                    "eth0": {"bridge": here, "port": f"{here}-p2", "mac": mac(k, 0), "addresses": [f"10.0.{k - 1}.2/24"]},
                    "eth1": {"bridge": there, "port": f"{there}-p1", "mac": mac(k, 1), "addresses": [f"10.0.{k}.1/24"]},
                }
            }
        return {"bridges": self.bridges, "routers": routers}

    # What routers say

    def next_hop(self, router: int) -> str:
        return HOST_MAC if router == self.routers else mac(router + 1, 0)

    def flow(self, router: int, destination: str, eth_dst: str | None = None) -> Flow:
        """`router` forwards `destination` to its next hop, or to `eth_dst`."""
        return {
            "match": {"in": "eth0", "ipv4_dst": destination},
            "action": "forward",
            "set": {"eth_dst": eth_dst or self.next_hop(router)},
            "out": "eth1",
        }

    def table(self, router: int, count: int) -> list[Flow]:
        """`count` prefixes."""
        return [self.flow(router, prefix(number)) for number in range(count)]

    def put(self, router: int, flows: list[Flow]) -> None:
        self.connection.request("PUT", f"/v1/routers/r{router}/flows", json.dumps({"flows": flows}).encode())

    def put_all(self, bodies: dict[int, bytes]) -> float:
        """One PUT per router, all at once; seconds until the last is confirmed. Raises LabError if one fails."""
        errors: list[Exception] = []

        def one(router: int, body: bytes) -> None:
            connection = Connection(self.control)
            try:
                answer = connection.request("PUT", f"/v1/routers/r{router}/flows", body)
                if answer["failed"] or answer["waiting_for"]:
                    raise LabError(f"r{router}: {answer['failed'][:1]}, waiting for {answer['waiting_for']}")
            except (OSError, LabError) as e:
                errors.append(e)
            finally:
                connection.close()

        threads = [threading.Thread(target=one, args=item) for item in bodies.items()]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - start
        if errors:
            raise LabError(f"a write failed: {errors[0]}") from errors[0]
        return took

    def clear(self) -> None:
        """No delegations."""
        for router in range(1, self.routers + 1):
            self.connection.request("DELETE", f"/v1/routers/r{router}/flows")

    # What is installed

    def rule_count(self) -> int:
        """Flow entries in all bridges."""
        return sum(flow_count(self.ovs, bridge) for bridge in self.bridges)


def memory_kib(pid: int, key: str = "VmRSS") -> int:
    """VmRSS, or VmHWM for the peak, of a process (proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise LabError(f"no {key} of process {pid}")
