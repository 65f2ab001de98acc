"""A place in a FIB as a text that readers of pages give back: what `next` holds and `after` takes."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import astuple

from fsctl.errors import MalformedError
from fsctl.fib import Page, Place
from fsctl.model import BITS, FiveTuple

MAX_PAGE = 10_000
"""Flows of one page."""


def read_page(given: dict[str, str]) -> Page | None:
    """`limit` and `after` of a query; None without `limit`: everything. Raises MalformedError."""
    if "limit" not in given:
        if "after" in given:
            raise MalformedError("is for pages only: give a limit too", field="after", value=given["after"])
        return None
    text = given["limit"]
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 0 < int(text) <= MAX_PAGE):
        raise MalformedError(f"expected a number from 1 to {MAX_PAGE}", field="limit", value=text)
    return Page(int(text), _place(given["after"]) if "after" in given else None)


def cursor_of(place: Place) -> str:
    """URL-safe, and nobody else's business."""
    (in_port, version, eth_src), key = place
    number = astuple(key) if isinstance(key, FiveTuple) else key
    return base64.urlsafe_b64encode(json.dumps([in_port, version, eth_src, number]).encode()).decode().rstrip("=")


def _place(text: str) -> Place:
    try:
        in_port, version, eth_src, key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        numbers = [version, *key] if isinstance(key, list) else [version, key]
        if not isinstance(in_port, str) or version not in BITS or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError
        if eth_src is not None and type(eth_src) is not int:
            raise ValueError
        return (in_port, version, eth_src), FiveTuple(*key) if isinstance(key, list) else key
    except (ValueError, TypeError, RecursionError, binascii.Error) as e:
        raise MalformedError("expected what `next` of an earlier page held", field="after", value=text) from e
