"""A private Open vSwitch with real packets: its bridges, the rules of fsctl in them, and which daemon has ended by itself."""

from __future__ import annotations

import re
from pathlib import Path

from tests.soak.plan import BRIDGES, PORTS, Port
from topologies.sandbox import DATABASE, SWITCH, Sandbox

COOKIE = "0x667363746c000000"
_TIMED = re.compile(r"(idle|hard)_timeout=")


class Switch(Sandbox):
    """ovsdb-server and ovs-vswitchd of one world; `name` is the network namespace of its datapath."""

    def __init__(self, name: str) -> None:
        self.killed: set[int] = set()
        super().__init__(inside=("ip", "netns", "exec", name))

    # --- daemons ------------------------------------------------------------------------------------------

    def died(self) -> str:
        """Which daemon has ended by itself, with its last words; empty if none has."""
        for which, name in ((DATABASE, "ovsdb-server"), (SWITCH, "ovs-vswitchd")):
            code = self._daemons[which].poll()
            if code is not None and which not in self.killed:
                log = self.directory / "vswitchd.log"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if which == SWITCH else ""
                return f"{name} ended by itself with {code}: {tail}"
        return ""

    def kill(self, which: int) -> None:
        self.killed.add(which)
        super().kill(which)

    def start_again(self, which: int) -> None:
        """A daemon that was killed; returns when it answers."""
        self.killed.discard(which)
        super().start_again(which)

    def rss_kib(self) -> int:
        return rss_kib(self.pid(SWITCH))

    # --- bridges ------------------------------------------------------------------------------------------

    def build(self, fail_mode: str) -> None:
        for bridge in BRIDGES:
            self.build_bridge(bridge, fail_mode)

    def build_bridge(self, bridge: str, fail_mode: str) -> None:
        """One transaction: the bridge with all its ports."""
        args = [
            "add-br", bridge, "--", "set", "bridge", bridge, f"datapath_type={self.datapath}", f"fail_mode={fail_mode}",
            "protocols=OpenFlow10,OpenFlow13,OpenFlow14", "other_config:disable-in-band=true",
        ]  # fmt: skip
        for port in PORTS.values():
            if port.bridge == bridge:
                args += ["--", *self.adding(port)]
        self.ctl(*args)

    @staticmethod
    def adding(port: Port, ofport: int | None = None) -> list[str]:
        wanted = [] if ofport is None else ["--", "set", "interface", port.name, f"ofport_request={ofport}"]
        return ["add-port", port.bridge, port.name, *port.vlan, *wanted]

    def ctl(self, *args: str, wait: bool = True) -> str:
        """ovs-vsctl with a bound: ovs-vswitchd may be away."""
        options = ("--timeout=20",) if wait else ("--timeout=5", "--no-wait")
        return self.run("ovs-vsctl", f"--db={self.remote}", *options, *args)

    def flows(self, bridge: str, *match: str) -> list[str]:
        """fsctl's rules, with the names of ports."""
        names = ("--no-stats", "--names")
        what = ",".join((f"cookie={COOKIE}/-1", *match))
        path = f"unix:{self.management(bridge)}"
        out = self.run("ovs-ofctl", "-O", "OpenFlow14", "--timeout=5", *names, "dump-flows", path, what)
        return [line.strip() for line in out.splitlines() if COOKIE in line and not _TIMED.search(line)]

    def port_numbers(self, bridge: str) -> dict[int, str]:
        """OpenFlow number -> name."""
        out = self.ofctl("show", bridge)
        return {int(n): name for n, name in re.findall(r"^ (\d+)\(([^)]+)\): addr", out, re.MULTILINE)}

    def patch_ports(self) -> list[tuple[str, str]]:
        """(bridge, port) of fsctl's links."""
        home = {port: b for b in self.ctl("list-br").split() for port in self.ctl("list-ports", b).split()}
        patches = self.ctl("--bare", "--columns=name", "find", "interface", "type=patch").split()
        return [(home[port], port) for port in sorted(patches) if port in home and port not in PORTS]


def rss_kib(pid: int) -> int:
    """A process's memory; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(next((line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")), "0"))
