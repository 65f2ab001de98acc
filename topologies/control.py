"""The controller of a lab: `ryu-manager fsctl.app` as a child process, and how routers and the host speak to it."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import yaml

from fsctl.client import Client
from fsctl.errors import FsctlError
from topologies.processes import Daemon, LabError, spawn

ROOT = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S = 60.0
ADMIN = "admin"


def free_port(host: str) -> int:
    """A TCP port that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Database(Protocol):
    """Where the bridges are configured."""

    @property
    def remote(self) -> str:
        """An OVSDB remote."""
        ...


class Control(Daemon):
    """Configuration, tokens and process of the controller. `stop` and `start` again make a restart."""

    def __init__(self, directory: Path, config: dict[str, Any], rest_host: str, ovs: Database) -> None:
        super().__init__()
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
        self.client = Client(self.url, self.tokens[ADMIN])
        """Speaks as the administrator, from the host."""

    def _digest(self, name: str) -> str:
        return hashlib.sha256(self.tokens[name].encode()).hexdigest()

    def start(self) -> None:
        """Start it if it does not run, and wait until it is ready; raises LabError with the end of its log."""
        if self._process is not None:
            return
        process = self.launch()
        deadline = time.monotonic() + READY_TIMEOUT_S
        while (problem := self._not_ready()) is not None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"the controller is not ready: {problem}; the end of its log:\n{self.log_tail()}")
            time.sleep(0.1)

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process, and do not wait for it."""
        path = self.directory / "fsctl.yaml"
        path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        command = [
            str(Path(sys.executable).with_name("ryu-manager")), "--ofp-listen-host", "127.0.0.1",
            "--ofp-tcp-listen-port", str(self.openflow_port), "fsctl.app",
        ]  # fmt: skip
        env = os.environ | {"FSCTL_CONFIG": str(path), "PYTHONPATH": str(ROOT)}
        self._process = spawn(command, self.log, env)
        return self._process

    def _not_ready(self) -> str | None:
        try:
            return "; ".join(self.client.not_ready()) or None
        except FsctlError as e:
            return str(e)

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def token_file(self, router: str) -> Path:
        """A file that holds the router's token, for root alone."""
        token = self.directory / f"{router}.token"
        if not token.exists():
            token.touch(mode=0o600)
            token.write_text(self.tokens[router])
        return token

    def command(self, router: str, *arguments: str) -> list[str]:
        """`fsctl ARGUMENTS --json` as `router`, with its own token; to be run inside its namespace."""
        environment = [f"FSCTL_URL={self.url}", f"FSCTL_TOKEN_FILE={self.token_file(router)}", f"PYTHONPATH={ROOT}"]
        return ["env", *environment, sys.executable, "-m", "fsctl.cli", "--json", *arguments]
