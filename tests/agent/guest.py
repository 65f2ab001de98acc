"""The whole agent as a process of its own in a router's namespace, between two hosts and beside a fake fsctl."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fsctl.model.addresses import format_mac
from fsctl.model.delegations import Forward
from tests.waiting import PATIENCE_S, waited_for

from .fake import FakeFsctl, a_router, serving
from .netns import Namespace, inside, namespaces, veth

_WITHOUT_ROUNDS = """
import sys
from fsctl.agent import runner
runner.LOOK_EVERY_SECONDS = runner.TEND_EVERY_SECONDS = 3600.0
from fsctl.agent.__main__ import main
sys.exit(main())
"""
ROOT = Path(__file__).resolve().parents[2]
"""Whose code the agent runs: this checkout's, wherever the package is installed from."""


def confined(ns: Namespace, *python: str) -> list[str]:
    """Python in the namespace, with CAP_NET_ADMIN as the only capability (what the systemd unit gives the agent)."""
    only = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all"]
    return ["ip", "netns", "exec", ns.name, *only, sys.executable, *python]


@dataclass
class Guest:
    """A router between two hosts, with interfaces that fsctl knows under other names."""

    ns: Namespace
    hosts: Namespace
    fake: FakeFsctl
    run_dir: Path
    url: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, *words: str) -> list[str]:
        return confined(self.ns, "-m", "fsctl.agent", *words)

    def start(self, *flags: str, run_dir: Path | None = None, rounds: bool = True) -> subprocess.Popen[str]:
        """Without `rounds`, nothing is looked at because time has passed: what happens must have been told."""
        where = ["--url", self.url, "--router", "vr1", "--run-dir", str(run_dir or self.run_dir), "--lease", "2"]
        token = self.run_dir / "token"
        token.write_text("secret\n")
        command = self.command("run", *where, "--token-file", str(token), *flags)
        if not rounds:
            at = command.index("-m")
            command[at : at + 2] = ["-c", _WITHOUT_ROUNDS]
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin", "PYTHONPATH": str(ROOT)},
        )
        self.processes.append(process)
        return process

    def flows(self) -> dict[str, str]:
        """(destination -> next hop) for packets that come in by eth0."""
        there = [d for d in list(self.fake.fib) if d.match.in_port == "eth0"]
        return {str(d.match.dst): format_mac(d.verdict.eth_dst) if isinstance(d.verdict, Forward) else "punt" for d in there}

    def patches(self) -> list[tuple[str, str, int]]:
        return [entry for entry in list(self.fake.log) if entry[0] == "PATCH" and entry[1] == "flows"]

    def waits_for(self, expected: dict[str, str]) -> None:
        assert waited_for(lambda: self.flows() == expected, PATIENCE_S), f"expected {expected}, there is {self.flows()}"

    def status(self, *words: str) -> str:
        command = self.command("status", "--run-dir", str(self.run_dir), *words)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def rss_kib(self, process: subprocess.Popen[str]) -> int:
        text = Path(f"/proc/{process.pid}/status").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")))

    def neigh(self, address: str) -> dict[str, Any]:
        found = [n for n in self.ns.json("neigh show") if n["dst"] == address]
        return found[0] if found else {}


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with ExitStack() as stack:
        ns, hosts = stack.enter_context(namespaces("a", "h"))
        for n, interface in enumerate(("r0", "r1")):
            veth(ns, interface, hosts, f"h{n}")
            ns.ip(f"addr add 10.0.{n}.1/24 dev {interface}")
            hosts.ip(f"addr add 10.0.{n}.9/24 dev h{n}")
        ns.forwards_plainly(("r0", "r1"))
        fake = FakeFsctl(a_router({"eth0": ns.mac("r0"), "eth1": ns.mac("r1")}), time.monotonic)
        with inside(ns.name):
            url = stack.enter_context(serving(fake))
        made = Guest(ns, hosts, fake, tmp_path, url)
        yield made
        for process in made.processes:
            process.kill()
            process.wait()


def mac(guest: Guest, n: int) -> str:
    return guest.hosts.mac(f"h{n}")
