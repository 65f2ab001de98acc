"""Strict JSON: no repeated keys, no NaN, no surprises; and checked access to what was read."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from fsctl.errors import InvalidError, MalformedError

Json = Any
"""What `json` reads and writes: dict, list, str, int, float, bool, None."""

MAX_DIGITS = 20
MAX_SHOWN = 200
"""How many characters of an offending value an error repeats."""


BREATH = 1000
"""Elements that are read before others run."""


def loads(body: bytes) -> Json:
    """JSON as RFC 8259 has it, in UTF-8; raises MalformedError, also for a key that an object has twice.

    At one stretch: for short bodies. `pieces` reads long ones.
    """
    try:
        return DECODER.decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise MalformedError(f"the body is not JSON: {e}") from e


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise MalformedError("an object has this key twice", field=twice, value=[v for n, v in pairs if n == twice])
    return members


def _constant(name: str) -> Json:
    raise MalformedError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise MalformedError(f"{text[:MAX_SHOWN]} is too large a number")
    return value


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise MalformedError(f"a number of more than {MAX_DIGITS} digits")
    return int(text)


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite, parse_int=_whole)


def dumps(value: Json) -> str:
    """Compact ASCII JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def shown(value: Json) -> Json:
    """`value` as an error repeats it: as it is where it is short, else the start of its text."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return str(value)[:MAX_SHOWN]
    return value if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def join(path: str, name: str) -> str:
    """The path of member `name` of what stands at `path`."""
    return f"{path}.{name}" if path else name


def fields(value: Json, path: str, required: Iterable[str] = (), optional: Iterable[str] = ()) -> Mapping[str, Json]:
    """A JSON object with known members; raises InvalidError naming an unknown or a missing one."""
    if not isinstance(value, dict):
        raise InvalidError("expected an object", field=path or None, value=value)
    required = tuple(required)
    known = (*required, *optional)
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise InvalidError(f"unknown field; {hint}", field=join(path, name), value=value[name])
    for name in required:
        if name not in value:
            raise InvalidError("this field is missing", field=join(path, name))
    return value


def array(value: Json, path: str) -> list[Json]:
    """A JSON array; raises InvalidError."""
    if not isinstance(value, list):
        raise InvalidError("expected an array", field=path, value=value)
    return value


def integer(value: Json, path: str, low: int, high: int) -> int:
    """A JSON integer from `low` to `high` (true and 1.0 are none); raises InvalidError."""
    if type(value) is not int or not low <= value <= high:
        raise InvalidError(f"expected a whole number from {low} to {high}", field=path, value=value)
    return value


def boolean(value: Json, path: str) -> bool:
    """true or false; raises InvalidError."""
    if not isinstance(value, bool):
        raise InvalidError("expected true or false", field=path, value=value)
    return value


def one_of(value: Json, path: str, known: Collection[str]) -> str:
    """One of the texts in `known`; raises InvalidError."""
    if not isinstance(value, str) or value not in known:
        raise InvalidError(f"expected one of {', '.join(known)}", field=path, value=value)
    return value
