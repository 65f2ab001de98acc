"""The test's side of ryu_driver: a real Ryu process to which a sandbox's bridges connect."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsctl.openflow.ports import Port
from fsctl.openflow.rules import RuleChange, RuleKey, Update
from fsctl.status import Dump, Rejection
from topologies.sandbox import Sandbox

HERE = Path(__file__).resolve().parent
START_TIMEOUT_S = 30.0
# ryu-manager as it is, with the old name that it wants given back to eventlet.
_MAIN = "from fsctl.compat import install; install(); from ryu.cmd.manager import main; main()"


class Driver:
    """`Southbound` of any bridge that was pointed at this controller, called from the test process."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._path = sandbox.directory / f"driver-{self.port}.sock"
        self.log = sandbox.directory / f"driver-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = dict(os.environ, FSCTL_TEST_SOCKET=str(self._path), PYTHONPATH=os.pathsep.join([str(HERE.parents[1]), str(HERE)]))
        command = [sys.executable, "-c", _MAIN, "--ofp-tcp-listen-port", str(self.port), "--ofp-listen-host", "127.0.0.1",
                   str(HERE / "ryu_driver.py")]  # fmt: skip
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._path.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ryu did not start: {self.log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def connect(self, bridge: str) -> None:
        """Make this the bridge's controller and wait until they speak."""
        self._sandbox.vsctl("set-controller", bridge, f"tcp:127.0.0.1:{self.port}")
        self.call(bridge, "wait")

    def call(self, bridge: str, method: str, *arguments: Any) -> Any:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(120)
            connection.connect(str(self._path))
            body = pickle.dumps((bridge, method, arguments))
            connection.sendall(len(body).to_bytes(4, "big") + body)
            with connection.makefile("rb") as stream:
                good, result = pickle.loads(stream.read(int.from_bytes(stream.read(4), "big")))
        if not good:
            raise result
        return result

    def apply(self, bridge: str, changes: Sequence[RuleChange]) -> list[Rejection]:
        result: list[Rejection] = self.call(bridge, "apply", Update(bridge, list(changes)))
        return result

    def fill(
        self, bridge: str, pieces: Sequence[Sequence[RuleChange]], end: str = "finish", pause_s: float = 0.0
    ) -> list[Rejection] | None:
        """`Southbound.fill`, the pieces with pauses behind them, and then `finish` or `abandon`."""
        result: list[Rejection] | None = self.call(bridge, "fill", [list(piece) for piece in pieces], end, pause_s)
        return result

    def dump(self, bridge: str) -> Dump:
        result: Dump = self.call(bridge, "dump")
        return result

    def counters(self, bridge: str) -> dict[RuleKey, tuple[int, int]]:
        result: dict[RuleKey, tuple[int, int]] = self.call(bridge, "counters")
        return result

    def ports(self, bridge: str) -> list[Port]:
        result: list[Port] = self.call(bridge, "ports")
        return result
