"""QEMU's machine protocol (QEMU Machine Protocol Specification, docs/interop/qmp-spec.txt), as far as the labs need it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from topologies.labs.remote import LabError

GREETING_S = 30.0


class Qmp:
    """A connection to a running QEMU; LabError whenever it refuses or has ended."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(GREETING_S)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rw")
        self.ask("qmp_capabilities")  # its answer comes after the greeting

    def ask(self, command: str, arguments: dict[str, Any] | None = None, timeout_s: float = 30) -> Any:
        """What a command returns; events that come before are passed over."""
        self._socket.settimeout(timeout_s)
        try:
            self._file.write(json.dumps({"execute": command, "arguments": arguments or {}}) + "\n")
            self._file.flush()
            while line := self._file.readline():
                reply = json.loads(line)
                if "return" in reply:
                    return reply["return"]
                if "error" in reply:
                    raise LabError(f"QEMU refused {command}: {reply['error']['desc']}")
        except OSError as e:
            raise LabError(f"QEMU gave no answer to {command}: {e}") from e
        raise LabError(f"QEMU ended at {command}")

    def human(self, line: str, timeout_s: float) -> str:
        """What the human monitor writes."""
        return str(self.ask("human-monitor-command", {"command-line": line}, timeout_s))
