"""OVN beside fsctl: northd and ovn-controller of the installed packages, all in a private directory.

    sender --- [ls0] --- lr1 --- [ls1] --- lr2 ... lrN --- [lsN] --- receiver

The same chain as `rig.Rig`'s, as logical routers with static routes. Runs on a `Sandbox` with real packets.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from topologies.experiments.report import SkippedError
from topologies.experiments.rig import HOST_MAC, mac
from topologies.experiments.search.fibs import SENDER_MAC
from topologies.experiments.wire import Namespace, Wire
from topologies.processes import LabError, Whole, run, spawn, stop
from topologies.sandbox import Sandbox

BRIDGE = "brint"
PREFIX_KEY = "FSCTL_OVN_PREFIX"
"""Environment variable: where OVN's packages are unpacked, if they are not installed (usr/bin and usr/share below it)."""
START_TIMEOUT_S = 20.0
ATTEMPTS = 4
SYNC_TIMEOUT_S = 300


def prefix() -> Path:
    """The root of OVN's files. SkippedError if there are none."""
    found = Path(os.environ.get(PREFIX_KEY, "/"))
    if not (found / "usr/bin/ovn-northd").exists() or not (found / "usr/bin/ovn-controller").exists():
        raise SkippedError("OVN is not there: apt-get install --no-install-recommends ovn-central ovn-host, "
                       f"or unpack these packages somewhere and say where in {PREFIX_KEY}")  # fmt: skip
    return found


def _between(switch: int, router_side: int) -> str:
    """Address of a router port on switch `switch`: 1 looks back, 2 is the router behind."""
    return f"10.{switch}.0.{router_side}"


class Northbound:
    """The northbound database's JSON-RPC (RFC 7047): transactions without ovn-nbctl's own checks, which would cost time."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SYNC_TIMEOUT_S)
        self._socket.connect(str(path))

    def close(self) -> None:
        self._socket.close()

    def transact(self, *operations: dict[str, Any]) -> None:
        """All or nothing; LabError with the database's words."""
        request = {"method": "transact", "params": ["OVN_Northbound", *operations], "id": 1}
        self._socket.sendall(json.dumps(request).encode())
        text, decoder = "", json.JSONDecoder()
        while True:
            piece = self._socket.recv(1 << 20)
            if not piece:
                raise LabError("the northbound database has closed the connection")
            text += piece.decode()
            try:
                answer, _ = decoder.raw_decode(text)
            except json.JSONDecodeError:
                continue
            errors = [r for r in answer["result"] or [] if r and "error" in r] or answer["error"]
            if errors:
                raise LabError(f"northbound database: {errors}")
            return

    def add_routes(self, router: str, routes: list[tuple[str, str]]) -> None:
        """(prefix, next hop) of a logical router, in one transaction."""
        inserts = [
            {"op": "insert", "table": "Logical_Router_Static_Route", "uuid-name": f"r{n}",
             "row": {"ip_prefix": destination, "nexthop": nexthop}}
            for n, (destination, nexthop) in enumerate(routes)
        ]  # fmt: skip
        names = ["set", [["named-uuid", f"r{n}"] for n in range(len(routes))]]
        mutate = {"op": "mutate", "table": "Logical_Router", "where": [["name", "==", router]],
                  "mutations": [["static_routes", "insert", names]]}  # fmt: skip
        self.transact(*inserts, mutate)


class OvnRig(Whole):
    """Databases, northd, controller, the logical network and a wire through it."""

    def __init__(self, routers: int) -> None:
        super().__init__()
        self.routers = routers
        self._root = prefix()

    def _open(self) -> None:
        space = self._stack.enter_context(Namespace())
        self.ovs = Sandbox(space.inside)
        self._stack.callback(self.ovs.stop)
        self.ovs.start()
        self.directory = self.ovs.directory
        self.env = self.ovs.env | {"OVN_RUNDIR": str(self.directory)}
        self.wire = self._stack.enter_context(Wire(space, self.ovs, BRIDGE))
        self.ovs.vsctl("set", "bridge", BRIDGE, "protocols=OpenFlow14,OpenFlow15")  # ovn-controller speaks 1.5
        self._start_databases()
        self.northbound = Northbound(self.directory / "nb.sock")
        self._stack.callback(self.northbound.close)
        self._build()
        self._start_controller()
        self.sync()

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        daemon = spawn([*command, "-vconsole:info", "-vsyslog:off", "-vfile:off"], self.directory / "ovn.log", self.env)
        self._stack.callback(stop, daemon)
        return daemon

    def _start_databases(self) -> None:
        nb, sb = (self.directory / f"{name}.sock" for name in ("nb", "sb"))
        for name, path in (("nb", nb), ("sb", sb)):
            schema = self._root / f"usr/share/ovn/ovn-{name}.ovsschema"
            self.ovs.run("ovsdb-tool", "create", str(self.directory / f"{name}.db"), str(schema))
            database = str(self.directory / f"{name}.db")
            self._spawn("ovsdb-server", database, f"--remote=punix:{path}", f"--unixctl={self.directory}/{name}.ctl")
            self._wait_for(path)
        northd = str(self._root / "usr/bin/ovn-northd")
        self._spawn(northd, f"--ovnnb-db=unix:{nb}", f"--ovnsb-db=unix:{sb}", f"--unixctl={self.directory}/northd.ctl")

    def _start_controller(self) -> None:
        settings = {
            "system-id": "bench", "ovn-remote": f"unix:{self.directory}/sb.sock", "ovn-encap-type": "geneve",
            "ovn-encap-ip": "127.0.0.1", "ovn-bridge": BRIDGE,
        }  # fmt: skip
        self.ovs.vsctl("set", "open_vswitch", ".", *(f'external_ids:{key}="{value}"' for key, value in settings.items()))
        for end, name in (("s", "sender"), ("r", "receiver")):
            self.ovs.vsctl("set", "interface", f"{BRIDGE}{end}", f"external_ids:iface-id={name}")
        for _ in range(ATTEMPTS):
            controller = self._spawn(str(self._root / "usr/bin/ovn-controller"), f"unix:{self.ovs.db_socket}")
            deadline = time.monotonic() + START_TIMEOUT_S / ATTEMPTS
            while time.monotonic() < deadline:
                if self.flow_count():  # without a chassis at work, `sync` would wait for nobody
                    return
                time.sleep(0.05)
            stop(controller)  # now and then 23.03 stands still after it has connected; a second one does not
        raise LabError(f"ovn-controller does nothing: {self._log_tail()}")

    def _wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not path.exists():
            if time.monotonic() > deadline:
                raise LabError(f"{path} did not appear: {self._log_tail()}")
            time.sleep(0.01)

    def _log_tail(self) -> str:
        return "\n".join((self.directory / "ovn.log").read_text(errors="replace").splitlines()[-10:])

    def nbctl(self, *args: str) -> str:
        """ovn-nbctl(8)."""
        command = (str(self._root / "usr/bin/ovn-nbctl"), f"--db=unix:{self.directory}/nb.sock", f"--timeout={SYNC_TIMEOUT_S}")
        return run(*command, *args, timeout_s=SYNC_TIMEOUT_S + 10, env=self.env)

    def sync(self) -> None:
        """Until ovn-controller says that all of the northbound database is in the bridge."""
        self.nbctl("--wait=hv", "sync")

    def _build(self) -> None:
        words: list[str] = []
        for k in range(self.routers + 1):
            words += ["--", "ls-add", f"ls{k}"]
        for k in range(1, self.routers + 1):
            words += ["--", "lr-add", f"lr{k}"]
            for number, switch in enumerate((k - 1, k)):
                words += self._port(k, number, switch)
        for name, switch, address in (("sender", 0, f"{SENDER_MAC:012x}"), ("receiver", self.routers, HOST_MAC.replace(":", ""))):
            text = ":".join(address[n : n + 2] for n in range(0, 12, 2))
            place = f"10.{switch}.0.10"
            words += ["--", "lsp-add", f"ls{switch}", name, "--", "lsp-set-addresses", name, f"{text} {place}"]
        self.nbctl(*words[1:])

    def _port(self, router: int, number: int, switch: int) -> list[str]:
        name = f"lr{router}-{number}"
        return [
            "--", "lrp-add", f"lr{router}", name, mac(router, number), f"{_between(switch, 2 - number)}/16",
            "--", "lsp-add", f"ls{switch}", f"s-{name}", "--", "lsp-set-type", f"s-{name}", "router",
            "--", "lsp-set-addresses", f"s-{name}", "router", "--", "lsp-set-options", f"s-{name}", f"router-port={name}",
        ]  # fmt: skip

    def next_hop(self, router: int) -> str:
        """The address behind `router`."""
        return f"10.{router}.0.10" if router == self.routers else _between(router, 2)

    def flow_count(self) -> int:
        return self.ovs.ofctl("dump-flows", BRIDGE, "--no-stats").count("actions=")
