"""FRR's OSPF in a lab's router: zebra(8) and ospfd(8), with directories of their own.

Nothing of a system's FRR is read, written or spoken to: configuration, sockets and process ids are in the lab's
directory, and the daemons live in the router's network namespace.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from topologies.nodes import Guest
from topologies.plan import Port, RoutedTopo, Station, subnet_of
from topologies.processes import LabError, spawn, stop
from topologies.watch import wait_for

DAEMONS = Path("/usr/lib/frr")
VTYSH = "vtysh"
GROUP = "frrvty"
HELLO_S, DEAD_S = 1, 4
"""OSPF's timers (RFC 2328, appendix C.3): a neighbour that says nothing for DEAD_S is gone."""


def require() -> None:
    """Raises LabError where FRR is not installed."""
    if not (DAEMONS / "ospfd").exists():
        raise LabError("FRR is not installed; `sudo make demo-agent` installs it")


def configuration(topo: RoutedTopo, router: Station, costs: dict[int, int]) -> str:
    """ospfd's, for one router; `costs`: of the subnets that are not to cost 10. Hosts' segments hear no OSPF."""
    lines = [f"hostname {router.name}"]
    for port in router.ports:
        lines += [f"interface {port.name}", f" ip ospf cost {costs.get(port.subnets[0], 10)}", " ip ospf area 0"]
        if _has_routers(topo, port):
            # Point-to-point: no election, which would take a dead interval at least.
            lines += [f" ip ospf hello-interval {HELLO_S}", f" ip ospf dead-interval {DEAD_S}", " ip ospf network point-to-point"]
            lines.append(" ip ospf retransmit-interval 2")
        else:
            lines.append(" ip ospf passive")
    lines += ["router ospf", f" ospf router-id {router.ports[0].address(4, router.ports[0].subnets[0])}"]
    return "\n".join(lines) + "\n"


def _has_routers(topo: RoutedTopo, port: Port) -> bool:
    neighbours = topo.neighbours(topo.stations[port.station])
    return any(mine is port and topo.stations[peer.station].is_router for mine, peer, _ in neighbours)


class Frr:
    """The daemons of one router."""

    def __init__(self, guest: Guest, directory: Path, ospf: str) -> None:
        self.guest = guest
        self.directory = directory
        self._ospf = ospf
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Both daemons. They stay root: the user they would become could not enter the lab's directory.

        FRR insists on its group for vtysh; it is given before, since a change of it would undo that the daemons die with the lab.
        """
        self.directory.mkdir(mode=0o700, exist_ok=True)
        (self.directory / "zebra.conf").write_text("")
        (self.directory / "ospfd.conf").write_text(self._ospf)
        (self.directory / "vtysh.conf").write_text("")
        for daemon in ("zebra", "ospfd"):
            here = self.directory / daemon
            command = self.guest.inside(
                "setpriv", "--regid", GROUP, "--clear-groups", "--pdeathsig", "TERM", str(DAEMONS / daemon),
                "--user", "root", "--group", GROUP, "--config_file", f"{here}.conf",
                "--pid_file", f"{here}.pid", "--socket", str(self.directory / "zserv.api"), "--vty_socket", str(self.directory),
                "--vty_port", "0", "--log", "stdout", "--log-level", "informational",
            )  # fmt: skip
            self._processes.append(spawn(command, Path(f"{here}.log")))
            # ospfd that finds no zebra tries again only after 10 s.
            wait_for(f"{daemon} listens", Path(f"{here}.vty").exists, timeout_s=10.0)

    def show(self, what: str) -> Any:
        """`show WHAT json`, as vtysh(1) answers it; LabError while the daemons do not answer."""
        answer = self.guest.execute(
            VTYSH, "--vty_socket", str(self.directory), "--config_dir", str(self.directory), "-c", f"show {what} json"
        )
        try:
            return json.loads(answer)
        except ValueError as e:
            raise LabError(f"vtysh, show {what}: {answer.strip()[:200]}; {self.log_tail()}") from e

    def route(self, subnet: int) -> list[str]:
        """The next hops of the route to a subnet that is in force; none if there is none."""
        found = self.show(f"ip route {subnet_of(4, subnet)}").get(str(subnet_of(4, subnet)), [])
        hops = [hop for route in found if route.get("selected") for hop in route["nexthops"]]
        return [hop["ip"] for hop in hops if hop.get("active") and "ip" in hop]

    def log_tail(self, lines: int = 5) -> str:
        logs = sorted(self.directory.glob("*.log"))
        return "; ".join(f"{log.name}: {' | '.join(log.read_text(errors='replace').splitlines()[-lines:])}" for log in logs)

    def kill(self) -> None:
        """End both without a word, as a crash would; their routes stay in the kernel."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()

    def stop(self) -> None:
        """End both."""
        while self._processes:
            stop(self._processes.pop())
