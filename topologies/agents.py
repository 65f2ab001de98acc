"""fsctl-agent in a lab's router: a child process in the router's namespace, which speaks over the management network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from topologies.control import ROOT
from topologies.lab import Lab
from topologies.processes import Daemon, LabError, spawn


class Agent(Daemon):
    """One router's agent. It is told URL, router and token, no more, unless `options` say so."""

    def __init__(self, lab: Lab, router: str, *options: str, name: str = "agent") -> None:
        super().__init__()
        if lab.control is None:
            raise LabError("the controller has not been started")
        self.guest, self.router = lab[router], router
        self.directory = lab.directory / f"{router}.{name}"
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.log = self.directory / "log"
        self._arguments = [
            "run", "--url", lab.control.url, "--router", router, "--token-file", str(lab.control.token_file(router)),
            "--run-dir", str(self.directory), *options,
        ]  # fmt: skip

    def start(self) -> None:
        """Start it if it does not run."""
        if self._process is None:
            command = self.guest.inside(sys.executable, "-m", "fsctl.agent", *self._arguments)
            self._process = spawn(command, self.log, os.environ | {"PYTHONPATH": str(ROOT)})

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def memory_bytes(self) -> int:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
