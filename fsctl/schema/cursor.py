"""A place in a FIB, or among the rules, as a text that readers of pages give back: what `next` holds and `after` takes."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, fields
from typing import Any

from fsctl.errors import MalformedError
from fsctl.model.addresses import BITS
from fsctl.model.delegations import FiveTuple, Fragments
from fsctl.model.fib import Page, PartKey, Place, RulePage, RulePlace
from fsctl.model.prefix_keys import Key

MAX_PAGE = 10_000
"""Flows, or rules, of one page."""


def read_page(given: Mapping[str, str]) -> Page | None:
    """`limit` and `after` of a query; None without `limit`: everything. Raises MalformedError."""
    if _is_whole(given):
        return None
    return Page(_limit(given["limit"]), _place(given["after"]) if "after" in given else None)


def read_rule_page(given: Mapping[str, str]) -> RulePage | None:
    """As `read_page`, of rules."""
    if _is_whole(given):
        return None
    return RulePage(_limit(given["limit"]), _rule_place(given["after"]) if "after" in given else None)


def _is_whole(given: Mapping[str, str]) -> bool:
    if "after" in given and "limit" not in given:
        raise MalformedError("is for pages only: give a limit too", field="after", value=given["after"])
    return "limit" not in given


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 0 < int(text) <= MAX_PAGE):
        raise MalformedError(f"expected a number from 1 to {MAX_PAGE}", field="limit", value=text)
    return int(text)


def cursor_of(place: Place) -> str:
    """URL-safe, and nobody else's business."""
    return _text([*place[0], _number(place[1])])


def rule_cursor_of(place: RulePlace) -> str:
    """As `cursor_of`, of a rule."""
    router, part_key, key = place
    return _text([router, *part_key, _number(key)])


def _number(key: Key | FiveTuple | Fragments) -> int | tuple[int, ...]:
    return key if isinstance(key, int) else astuple(key)


def _text(values: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def _place(text: str) -> Place:
    with _reading(text) as values:
        in_port, version, eth_src, number = values
        key = _key(number)
        if isinstance(key, Fragments):
            raise ValueError
        return _part(in_port, version, eth_src), key


def _rule_place(text: str) -> RulePlace:
    with _reading(text) as values:
        router, in_port, version, eth_src, number = values
        if not isinstance(router, str):
            raise ValueError
        return router, _part(in_port, version, eth_src), _key(number)


@contextmanager
def _reading(text: str) -> Iterator[Any]:
    """What a cursor holds; what is wrong with it, here or in the block, becomes a MalformedError."""
    try:
        yield json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, TypeError, RecursionError, binascii.Error) as e:
        raise MalformedError("expected what `next` of an earlier page held", field="after", value=text) from e


def _part(in_port: Any, version: Any, eth_src: Any) -> PartKey:
    if not isinstance(in_port, str) or type(version) is not int or version not in BITS:
        raise ValueError
    if eth_src is not None and type(eth_src) is not int:
        raise ValueError
    return in_port, version, eth_src


def _key(number: Any) -> Key | FiveTuple | Fragments:
    numbers = number if isinstance(number, list) else [number]
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError
    if not isinstance(number, list):
        return int(number)
    return Fragments(*number) if len(number) == len(fields(Fragments)) else FiveTuple(*number)
