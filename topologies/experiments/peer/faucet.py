"""Faucet: switches route between VLANs. Routes are lines of its configuration, next hops are found by ARP every few seconds.

One Faucet per router, as routers have configurations of their own: with all in one, every switch would get every router's
VLANs, `global_vlan` (one table of routes for both VLANs of a router) would not be possible, and a change of one route
would make Faucet read the routes of all.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

from topologies.control import free_port
from topologies.experiments.peer import chain
from topologies.experiments.peer.contender import CHANGE_LIMIT_S, POLL_S, RESTART_LIMIT_S, Contender, Installed, Restarted, waited
from topologies.experiments.peer.environment import FAUCET, environ, python_of
from topologies.experiments.peer.ground import OTHER_PORT, Ground
from topologies.experiments.rig import OTHER_HOST_MAC, mac, prefix
from topologies.processes import Daemon, LabError, spawn

START_TIMEOUT_S = 60.0
FRAME = 10
"""A bridge that Faucet has set up has more rules than that, without any route."""
VIDS = {chain.BEFORE: 10, chain.BEHIND: 20}
GLOBAL_VLAN = 30
Route = tuple[str, str]
"""Destination and gateway."""


def configuration(router: int, bridge: str, routes: list[Route], ports: dict[int, int]) -> str:
    """One router: a VLAN before it and one behind it, with the routes; `ports`: the VLAN's side of each port."""
    lines = ["vlans:"]
    for side in (chain.BEFORE, chain.BEHIND):
        lines += [f"  v{side}:", f"    vid: {VIDS[side]}", f'    faucet_mac: "{mac(router, side - 1)}"',
                  f'    faucet_vips: ["{chain.address(router, side)}/24"]']  # fmt: skip
    if routes:
        lines.append("    routes:")
        lines += [f'      - route: {{ip_dst: "{destination}", ip_gw: "{by}"}}' for destination, by in routes]
    lines += ["routers:", f"  r{router}:", f"    vlans: [v{chain.BEFORE}, v{chain.BEHIND}]"]
    lines += ["dps:", f"  {bridge}:", f"    dp_id: {router}", "    hardware: Open vSwitch", f"    global_vlan: {GLOBAL_VLAN}",
              "    interfaces:"]  # fmt: skip
    lines += [f"      {port}: {{native_vlan: v{side}}}" for port, side in ports.items()]
    return "\n".join(lines) + "\n"


class OneFaucet(Daemon):
    """The process of one router, and its files."""

    def __init__(self, python: Path, directory: Path, router: int, bridge: str, ports: dict[int, int]) -> None:
        super().__init__()
        self._python, self._directory, self._router, self._bridge, self._ports = python, directory, router, bridge, ports
        self.openflow_port = free_port("127.0.0.1")
        self.routes: list[Route] = []
        directory.mkdir()

    def write(self) -> None:
        """The configuration as `routes` has it now."""
        text = configuration(self._router, self._bridge, self.routes, self._ports)
        (self._directory / "faucet.yaml").write_text(text)

    def start(self) -> None:
        here = self._directory
        env = environ(FAUCET) | {
            "FAUCET_CONFIG": str(here / "faucet.yaml"), "FAUCET_LOG": str(here / "faucet.log"), "FAUCET_EVENT_SOCK": "0",
            "FAUCET_EXCEPTION_LOG": str(here / "exception.log"), "FAUCET_LOG_LEVEL": "WARNING",
            "FAUCET_PROMETHEUS_ADDR": "127.0.0.1", "FAUCET_PROMETHEUS_PORT": str(free_port("127.0.0.1")),
        }  # fmt: skip
        command = [str(self._python), "-m", "os_ken.cmd.manager", "--ofp-listen-host=127.0.0.1",
                   f"--ofp-tcp-listen-port={self.openflow_port}", "faucet.faucet"]  # fmt: skip
        self._process = spawn(command, here / "stderr.log", env)

    def reload(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def log_tail(self) -> str:
        """The last words of all its logs."""
        logs = [self._directory / name for name in ("stderr.log", "faucet.log", "exception.log")]
        return "\n".join(line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()[-5:])


class Faucet(Contender):
    """A Faucet for each router."""

    name = "Faucet"
    changes = 3

    def _open(self) -> None:
        python = python_of(FAUCET)
        self.ground = self._stack.enter_context(Ground(chain.bridges(self.routers), self.routers))
        chain.join(self.ground)
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fsctl-peer-")))
        self._faucets: list[OneFaucet] = []
        for router, bridge in enumerate(self.ground.bridges, 1):
            ports = {port: port for port in (chain.BEFORE, chain.BEHIND)}
            if router == self.routers:
                ports[OTHER_PORT] = chain.BEHIND
            one = OneFaucet(python, directory / bridge, router, bridge, ports)
            self._stack.callback(one.stop)
            self._faucets.append(one)
            one.write()
            one.start()
            chain.connect(self.ground, bridge, one.openflow_port)
        if waited(lambda: all(self.ground.count(bridges=[b]) > FRAME for b in self.ground.bridges), START_TIMEOUT_S) is None:
            raise LabError(f"Faucet does nothing: {self._log_tails()}")

    def _log_tails(self) -> str:
        return "\n".join(one.log_tail() for one in self._faucets)

    @property
    def pids(self) -> list[int]:
        return [one.pid for one in self._faucets]

    @property
    def entry_mac(self) -> str:
        return mac(1, 0)

    def install(self, count: int) -> Installed:
        for router, one in enumerate(self._faucets, 1):
            one.routes = [(prefix(n), chain.gateway(router, self.routers)) for n in range(count)]
        start = time.monotonic()
        for one in self._faucets:
            one.write()
            one.reload()
        wanted = self.routers * count
        waited(lambda: self.rules() >= wanted, self.limit_s)
        return Installed(time.monotonic() - start, self.rules(), wanted)

    def change(self, number: int) -> float | None:
        last, bridge = self._faucets[-1], self.ground.bridges[-1]
        last.routes[number] = (prefix(number), chain.other_gateway(self.routers))
        wanted = len(last.routes)
        start = time.monotonic()
        last.write()
        last.reload()

        def done() -> bool:
            """The others of this router must be there too: they are taken out with the one."""
            return OTHER_HOST_MAC in self.ground.rules_for(bridge, prefix(number)) and self.rules() >= wanted * self.routers

        return time.monotonic() - start if waited(done, CHANGE_LIMIT_S) is not None else None

    def restart(self) -> Restarted | None:
        before = fewest = self.rules()
        for one in self._faucets:
            one.stop()
        start = time.monotonic()
        for one in self._faucets:
            one.start()
        while time.monotonic() - start < RESTART_LIMIT_S:
            now = self.rules()
            fewest = min(fewest, now)
            if fewest < before <= now:
                return Restarted(time.monotonic() - start, fewest, before)
            time.sleep(POLL_S)
        return None
