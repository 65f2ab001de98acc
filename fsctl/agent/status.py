"""The agent's state for `fsctl-agent status`: a unix socket that answers each connection with one JSON document."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fsctl.errors import ConfigError, UnavailableError

NAME = "status.sock"
CLIENT_SECONDS = 5.0


class StatusSocket:
    """Listens in `run_dir`; only one agent can (raises ConfigError if another one answers there)."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / NAME
        run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        with suppress(UnavailableError):
            other = ask(run_dir)
            raise ConfigError(str(self._path), f"another agent runs here, for router {other.get('router')}", field="run_dir")
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(self._path))
        self._path.chmod(0o600)
        self._socket.listen(8)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def serve(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        """Answer whoever has connected. A client that does not read loses its answer, not the agent its time."""
        while True:
            try:
                peer, _ = self._socket.accept()
            except BlockingIOError:
                return
            with peer:
                peer.setblocking(False)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                with suppress(OSError):
                    peer.send(json.dumps(snapshot()).encode())

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)


def ask(run_dir: Path) -> dict[str, Any]:
    """The running agent's state; raises UnavailableError where none runs."""
    path = run_dir / NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(CLIENT_SECONDS)
        try:
            s.connect(str(path))
            data = b"".join(iter(lambda: s.recv(1 << 16), b""))
            found: dict[str, Any] = json.loads(data)
        except (OSError, ValueError) as e:
            raise UnavailableError(f"no agent answers at {path}") from e
    return found
