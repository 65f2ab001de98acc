"""The line from the agent to fsctl: a TCP relay, in the router's namespace, that can be slow or cut."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from tests.agent.netns import inside

CHUNK = 1 << 16
PIECES = 6
"""Of a call: its head, its body, the answer; and as many of one that is under way on the same connection."""


class Line:
    """Listens in the namespace, connects from the calling thread's. `delay_s` is added to every piece that is carried."""

    def __init__(self, namespace: str, host: str, port: int) -> None:
        self.delay_s, self.is_cut = 0.0, False
        self._was: tuple[float, float] = (0.0, 0.0)
        self._to = (host, port)
        self._open: set[socket.socket] = set()
        with inside(namespace):
            self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def slow(self, delay_s: float) -> None:
        """What is under way keeps the delay of before."""
        self._was = (self.slack_s, time.monotonic() + self.slack_s)
        self.delay_s = delay_s

    @property
    def slack_s(self) -> float:
        """By how much one call is later than on a line without a delay."""
        most, until = self._was
        return max(PIECES * self.delay_s, most if time.monotonic() < until else 0.0)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Every connection that there is ends."""
        for s in list(self._open):
            with suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.is_cut:
                near.close()
                continue
            try:
                far = socket.create_connection(self._to)
            except OSError:
                near.close()
                continue
            for s in (near, far):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, source: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if self.delay_s:
                    time.sleep(self.delay_s)
                to.sendall(data)
        for s in (source, to):
            with suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()
