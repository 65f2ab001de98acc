"""Talking to a station (`station.py`): commands on the host of the bridges and in its guests."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

SLACK_S = 900.0
"""Wall time granted over a command's own timeout: an emulated host's clock may run ten times slower than ours."""
WITH_PARENT = ("setpriv", "--pdeathsig", "TERM")
"""Before a command: it ends when the process that started it does, however that ends (prctl(2), PR_SET_PDEATHSIG)."""


class LabError(RuntimeError):
    """The lab did not do what it was told; says what, and what came back."""


def end_in_order() -> None:
    """Let SIGTERM unwind this process like an exception, so that labs take away what they made."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Channel(Protocol):
    """A byte stream to a station."""

    def send(self, data: bytes) -> None: ...
    def receive(self, timeout_s: float) -> bytes:
        """What has come, at least a byte; empty when nothing came in time. LabError if it is closed."""
        ...


class SocketChannel:
    """A unix socket, as QEMU gives one for a serial line."""

    BURST = 512

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), self.BURST):
            self._socket.sendall(data[start : start + self.BURST])

    def receive(self, timeout_s: float) -> bytes:
        readable, _, _ = select.select([self._socket], [], [], timeout_s)
        if not readable:
            return b""
        data = self._socket.recv(65536)
        if not data:
            raise LabError("the emulated machine has ended")
        return data

    def close(self) -> None:
        self._socket.close()


class PipeChannel:
    """A station running as a child process."""

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen([*WITH_PARENT, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def send(self, data: bytes) -> None:
        self._in.write(data)
        self._in.flush()

    def receive(self, timeout_s: float) -> bytes:
        readable, _, _ = select.select([self._out], [], [], timeout_s)
        if not readable:
            return b""
        data = self._out.read(65536)
        if not data:
            raise LabError("the station has ended")
        return data

    def close(self) -> None:
        self._in.close()
        self._process.wait(10)
        self._out.close()


@dataclass(frozen=True, slots=True)
class Result:
    """What a command answered."""

    rc: int
    out: str


class Station:
    """Runs commands through a channel, one after the other."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._rest = b""

    def _ask(self, request: dict[str, Any], timeout_s: float) -> Result:
        self._channel.send(json.dumps({**request, "timeout": timeout_s}).encode() + b"\n")
        end = time.monotonic() + timeout_s + SLACK_S
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0:
                raise LabError(f"no answer to {request} (so far: {self._rest!r})")
            self._rest += self._channel.receive(left)
        line, _, self._rest = self._rest.partition(b"\n")
        reply = json.loads(line)
        return Result(reply["rc"], reply["out"])

    def try_run(self, command: str, timeout_s: float = 60, guest: str | None = None) -> Result:
        """A command's result, whatever it is; `guest` is a management address, None the host itself."""
        request = {"shell": command} if guest is None else {"shell": command, "guest": guest}
        return self._ask(request, timeout_s)

    def run(self, command: str, timeout_s: float = 60, guest: str | None = None) -> str:
        """A command's output; LabError if it fails."""
        result = self.try_run(command, timeout_s, guest)
        if result.rc != 0:
            raise LabError(f"{guest or 'host'}: {command!r} ended with {result.rc}:\n{result.out}")
        return result.out

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on the host."""
        result = self._ask({"path": path, "text": text, "mode": mode}, 30)
        if result.rc != 0:
            raise LabError(f"cannot write {path}: {result.out}")

    def until(self, command: str, wanted: str, timeout_s: float, guest: str | None = None) -> str:
        """Repeat a command until `wanted` is in its output; LabError after `timeout_s` of wall time."""
        end = time.monotonic() + timeout_s
        while True:
            result = self.try_run(command, 30, guest)
            if wanted in result.out:
                return result.out
            if time.monotonic() > end:
                raise LabError(f"{command!r} did not show {wanted!r} in {timeout_s} s; last: {result.out}")
            time.sleep(0.3)
