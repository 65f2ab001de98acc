"""Commands and daemons of a lab: errors with the daemons' own words, and nothing left behind."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

PR_SET_PDEATHSIG = 1


class LabError(RuntimeError):
    """The lab cannot be brought up or used; says what failed and with which words."""


def run(*command: str, timeout_s: float = 60.0, env: dict[str, str] | None = None, stdin: str | None = None) -> str:
    """Standard output of a command; LabError with its standard error if it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=env, input=stdin)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise LabError(f"{' '.join(command)}: {e}") from e
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def die_with_parent() -> None:
    """For a child, before it executes: end when the lab's process ends, whatever ends it (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def spawn(command: list[str], log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A daemon of the lab's: no terminal, so that Ctrl-C reaches the lab alone, which ends it in order."""
    with open(log, "ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            preexec_fn=die_with_parent, env=env,  # noqa: PLW1509 - the lab spawns from one thread
        )  # fmt: skip


def stop(process: subprocess.Popen[bytes], timeout_s: float = 10.0) -> None:
    """End a daemon: politely, then not."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Daemon:
    """A daemon that may be ended and started again."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """LabError if it does not run."""
        if self._process is None:
            raise LabError(f"{type(self).__name__} does not run")
        return self._process.pid

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def kill(self) -> None:
        """End it without a word, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Whole(ABC):
    """Opened whole or not at all: what `_open` enters in `_stack` ends with the block, or as soon as `_open` fails."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    @abstractmethod
    def _open(self) -> None: ...

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
