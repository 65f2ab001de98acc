"""Ends a process that hangs, so that the service manager starts it anew; tells systemd that it works (sd_notify(3)).

A green thread that never gives way stops all others. So a real thread looks whether they still run. It counts its own
turns and not the time: while the whole process is stopped (SIGSTOP, a suspended host), neither goes on.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import socket
import sys
from collections.abc import Callable

import eventlet.patcher

_LOG = logging.getLogger(__name__)
HANGS_S = 30
"""The process ends if nobody has called `beat` for so many seconds."""
EXIT_CODE = 70
_TURN_S = 1.0
_threading = eventlet.patcher.original("threading")
_time = eventlet.patcher.original("time")


def notify(state: str) -> None:
    """Tell systemd, if it has started the process; never fails."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    original = eventlet.patcher.original("socket")
    try:
        with original.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.connect("\0" + path[1:] if path.startswith("@") else path)
            out.send(state.encode())
    except OSError as e:
        _LOG.warning("systemd cannot be told %s: %s", state, e)


class Watchdog:
    """`beat` is to be called every second by a green thread, while all is well."""

    def __init__(self, hangs_s: int = HANGS_S, end: Callable[[], None] | None = None) -> None:
        self._hangs_s, self._end = hangs_s, end or _end
        self._beats = 0
        self._is_stopped = False

    def beat(self) -> None:
        self._beats += 1

    def stop(self) -> None:
        self._is_stopped = True

    def start(self) -> None:
        """Watch in a thread of its own."""
        _threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    def _watch(self) -> None:
        seen, silent = self._beats, 0
        while not self._is_stopped:
            _time.sleep(_TURN_S)
            if self._beats != seen:
                seen, silent = self._beats, 0
                notify("WATCHDOG=1")
                continue
            silent += 1
            if silent >= self._hangs_s:
                self._end()
                return


def _end() -> None:
    sys.stderr.write(f"fsctl hangs: nothing has run for {HANGS_S} s; the process ends. Its threads:\n")
    faulthandler.dump_traceback()
    sys.stderr.flush()
    os._exit(EXIT_CODE)
