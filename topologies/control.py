"""The controller of a lab: `ryu-manager fsctl.app` as a child process, and REST calls to it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from topologies.ovs import LabError, OpenVSwitch, spawn, stop

ROOT = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S = 60.0
ADMIN = "admin"


def free_port(host: str) -> int:
    """A TCP port that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def call(method: str, url: str, token: str, body: bytes | None = None, timeout_s: float = 60.0) -> Any:
    """One REST call; LabError with the server's words if it refuses."""
    request = urllib.request.Request(url, data=body, method=method)  # noqa: S310 - http to the lab's own address
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout_s) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as e:
        raise LabError(f"{method} {url}: {e.code} {e.read().decode(errors='replace')}") from e
    except OSError as e:
        raise LabError(f"{method} {url}: {e}") from e


class Control:
    """Configuration, tokens and process of the controller. `stop` and `start` again make a restart."""

    def __init__(self, directory: Path, config: dict[str, Any], rest_host: str, ovs: OpenVSwitch) -> None:
        self.directory = directory
        self.log = directory / "controller.log"
        self.openflow_port = free_port("127.0.0.1")
        self.url = f"http://{rest_host}:{(rest_port := free_port(rest_host))}"
        self.tokens = {name: secrets.token_hex(16) for name in (*config["routers"], ADMIN)}
        for name, router in config["routers"].items():
            router["token_sha256"] = self._digest(name)
        self.config = {
            "rest": {"host": rest_host, "port": rest_port},
            "store": str(directory / "fsctl.db"),
            "ovsdb": ovs.remote,
            "openflow": {"controller": f"tcp:127.0.0.1:{self.openflow_port}"},
            "admin_token_sha256": self._digest(ADMIN),
            **config,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def _digest(self, name: str) -> str:
        return hashlib.sha256(self.tokens[name].encode()).hexdigest()

    def start(self) -> None:
        """Start it if it does not run, and wait until it is ready; raises LabError with the end of its log."""
        if self._process is not None:
            return
        path = self.directory / "fsctl.yaml"
        path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        command = [
            str(Path(sys.executable).with_name("ryu-manager")), "--ofp-listen-host", "127.0.0.1",
            "--ofp-tcp-listen-port", str(self.openflow_port), "fsctl.app",
        ]  # fmt: skip
        env = os.environ | {"FSCTL_CONFIG": str(path), "PYTHONPATH": str(ROOT)}
        self._process = spawn(command, self.log, env)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while (problem := self._not_ready()) is not None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"the controller is not ready: {problem}; the end of its log:\n{self.log_tail()}")
            time.sleep(0.1)

    def _not_ready(self) -> str | None:
        try:
            call("GET", f"{self.url}/readyz", self.tokens[ADMIN], timeout_s=5)
        except LabError as e:
            return str(e)
        return None

    def stop(self) -> None:
        """End it; the bridges keep their rules."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def get(self, path: str) -> Any:
        """As the administrator, from the host."""
        return call("GET", f"{self.url}{path}", self.tokens[ADMIN])

    def command(self, method: str, path: str, router: str) -> list[str]:
        """A command line that makes a REST call as `router`; the body comes on standard input."""
        token = self.directory / f"{router}.token"
        if not token.exists():
            token.touch(mode=0o600)
            token.write_text(self.tokens[router])
        return ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "topologies.control", method, f"{self.url}{path}", str(token)]


def main() -> None:
    """METHOD URL TOKEN-FILE: one REST call, body on standard input, answer on standard output."""
    method, url, token = sys.argv[1:]
    body = sys.stdin.read()
    answer = call(method, url, Path(token).read_text(), None if body == "null" else body.encode())
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
