"""Long bodies, read piece by piece: no step takes longer than its piece, and others run in between.

Python's own decoder reads a body at one stretch: a text of 60 MB, or thirty million numbers, keep everybody waiting for
seconds. Here the outer object and its arrays are read by hand, and the decoder gets one element after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from fsctl.errors import MalformedError, TooLargeError
from fsctl.schema.text import BREATH, DECODER, Json, loads

AT_ONCE = 1 << 16
"""Bytes of a body that is read at one stretch."""
ELEMENT = 4096
"""The most bytes of one element. A flow of all fields takes about 400."""
_SPACE = re.compile(r"[ \t\n\r]{0,4096}")


def loads_pieces(body: bytes, most: Mapping[str, int], pause: Callable[[], None]) -> Json:
    """JSON as `text.loads` reads it; an object whose arrays named in `most` have at most so many elements.

    Raises MalformedError and TooLargeError. `pause` lets others run.
    """
    if len(body) <= AT_ONCE:
        return loads(body)
    if not body.isascii():
        raise MalformedError(f"a body of more than {AT_ONCE} bytes must be ASCII (write other characters as \\uXXXX)")
    return _Reader(body.decode("ascii"), pause).object(most)


class _Reader:
    def __init__(self, text: str, pause: Callable[[], None]) -> None:
        self._text, self._pause = text, pause
        self._at = 0
        self._left = BREATH

    def object(self, most: Mapping[str, int]) -> dict[str, Json]:
        """The whole body."""
        members: dict[str, Json] = {}
        self._next("{")
        more = self._peek() != "}"
        while more:
            name = self._value()
            if not isinstance(name, str):
                raise self._error("expected a key")
            if name in members:
                raise MalformedError("an object has this key twice", field=name)
            self._next(":")
            members[name] = self._array(name, most[name]) if name in most and self._peek() == "[" else self._value()
            more = self._next(",}") == ","
        if not members:
            self._next("}")
        if self._peek():
            raise self._error("there is more after its end")
        return members

    def _array(self, name: str, most: int) -> list[Json]:
        elements: list[Json] = []
        self._next("[")
        more = self._peek() != "]"
        if not more:
            self._next("]")
        while more:
            if len(elements) >= most:
                raise TooLargeError(f"this array may have at most {most} elements", field=name, value=f"more than {most}")
            elements.append(self._value())
            more = self._next(",]") == ","
        return elements

    def _value(self) -> Json:
        """The next value, of at most ELEMENT bytes."""
        self._breathe()
        self._peek()
        piece = self._text[self._at : self._at + ELEMENT]
        is_cut = self._at + ELEMENT < len(self._text)
        try:
            value, end = DECODER.raw_decode(piece)
        except (ValueError, RecursionError) as e:
            longer = f", or longer than {ELEMENT} bytes" if is_cut else ""
            raise self._error(f"what stands there is not a value{longer}") from e
        if is_cut and end == len(piece):
            raise self._error(f"what stands there is longer than {ELEMENT} bytes")
        self._at += end
        return value

    def _next(self, expected: str) -> str:
        """The next character, which must be one of these."""
        found = self._peek()
        if not found or found not in expected:
            raise self._error(f"expected {' or '.join(expected)}")
        self._at += 1
        return found

    def _peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while (found := _SPACE.match(self._text, self._at)) is not None and found.end() > self._at:
            self._at = found.end()
            self._breathe()
        return self._text[self._at : self._at + 1]

    def _breathe(self) -> None:
        self._left -= 1
        if not self._left:
            self._left = BREATH
            self._pause()

    def _error(self, what: str) -> MalformedError:
        return MalformedError(f"the body is not JSON: {what} (at byte {self._at})")
