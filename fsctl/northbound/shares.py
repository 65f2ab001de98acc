"""What one caller may hold at a time: long bodies that are being read, and long lists that are being written.

Whoever has a token can open 64 connections, and a long body takes ten times its size while it is read. So the router that
sends one waits with the next until it is understood, and all long bodies together have a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice

from fsctl.errors import BusyError

LONG_BODY = 1 << 16
"""Bytes of a body that anybody may send beside others."""
MOST_BYTES = 128 << 20
"""Bytes of all long bodies that are being read."""
MOST_LISTS, MOST_OF_ADMINISTRATOR = 2, 8
"""Long lists that one router, and all who have the administrator's token, read at a time."""
ADMINISTRATOR = ""
"""The administrator among callers, which are names of routers."""


class Bodies:
    """The long bodies that are being read, by caller."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most, self._held = most, Counter[str]()

    @contextmanager
    def reading(self, who: str, size: int) -> Iterator[None]:
        """While a body of so many bytes is read and understood. Raises BusyError if that would be too much."""
        if size <= LONG_BODY:
            yield
            return
        if who in self._held:
            raise BusyError("a long body of this caller is being read already", field="Content-Length", value=size)
        # One alone is always read, whatever the bound: else it never would be.
        if self._held and self._held.total() + size > self._most:
            raise BusyError(f"bodies of more than {self._most} bytes are being read", field="Content-Length", value=size)
        self._held[who] = size
        try:
            yield
        finally:
            del self._held[who]


class Lists:
    """How many long lists each caller reads."""

    def __init__(self) -> None:
        self._open = Counter[str]()

    def open(self, who: str) -> Callable[[], None]:
        """One more; the answer ends it, and may be called twice. Raises BusyError."""
        most = MOST_LISTS if who != ADMINISTRATOR else MOST_OF_ADMINISTRATOR
        if self._open[who] >= most:
            raise BusyError(f"{most} long lists of this caller are being read already; read pages (?limit=)")
        self._open[who] += 1
        is_open = [True]

        def close() -> None:
            if is_open:
                is_open.clear()
                self._open[who] -= 1
                if not self._open[who]:
                    del self._open[who]

        return close


class Pieces:
    """An answer in pieces that calls `ended` once: when it is at its end, is given up, or was never begun."""

    def __init__(self, pieces: Iterator[bytes], ended: Callable[[], None]) -> None:
        self._pieces, self._ended = pieces, ended

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except BaseException:
            self._ended()
            raise

    def read_ahead(self, count: int) -> None:
        """Make the first pieces now: what goes wrong with them is raised here."""
        self._pieces = chain([*islice(self, count)], self._pieces)

    def close(self) -> None:
        """As WSGI has it (PEP 3333)."""
        self._ended()

    def __del__(self) -> None:
        self._ended()
