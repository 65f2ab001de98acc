"""fsctl's rules as they compare before and after: numbers that may change replaced by what they stand for."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

from tests.soak.plan import LEASED, MANAGED, ROUTERS
from tests.soak.switch import Switch

Book = dict[str, Counter[str]]
_COOKIE = re.compile(r"cookie=0x[0-9a-f]+, ")
_REWRITE = re.compile(r"reg1=(0x[0-9a-f]+)")
_LOADED = re.compile(r"(load:|set_field:)(0x[0-9a-f]+)(->(?:NXM_NX_REG1\[\]|reg1))")
_IN_PORT = re.compile(r"load:(0x[0-9a-f]+|\d+)->NXM_OF_IN_PORT\[\]")
_LEASED = re.compile("|".join([*(p.mac for p in ROUTERS[LEASED].ports), r"nw_dst=10\.77\."]))
"""The leased router's rules come and go all the time, and what its prefixes make at routers before it: not compared."""


def rules_of(switch: Switch, bridge: str) -> Counter[str]:
    """The rules of one bridge without timeouts, in a form that does not depend on port and rewrite numbers."""
    numbers = switch.port_numbers(bridge)
    lines = [_COOKIE.sub("", line) for line in switch.flows(bridge) if not _LEASED.search(line)]
    lines = [_IN_PORT.sub(lambda m: f"load:{numbers.get(int(m[1], 0), m[1])}->NXM_OF_IN_PORT[]", line) for line in lines]
    meaning: dict[str, list[str]] = {}
    for line in lines:
        found = _REWRITE.search(line)
        if found:
            meaning.setdefault(found[1], []).append(line.replace(found[0], "reg1"))
    labels = {n: hashlib.blake2s("\n".join(sorted(texts)).encode(), digest_size=4).hexdigest() for n, texts in meaning.items()}
    lines = [_REWRITE.sub(lambda m: f"reg1={labels[m[1]]}", line) for line in lines]
    return Counter(_LOADED.sub(lambda m: f"{m[1]}{labels.get(m[2], 'MISSING')}{m[3]}", line) for line in lines)


def read(switch: Switch) -> Book:
    return {bridge: rules_of(switch, bridge) for bridge in MANAGED}


def difference(wanted: Book, found: Book, most: int = 6) -> list[str]:
    """What is missing and what is too much, in words; at most so many of each per bridge."""
    words = []
    for bridge in MANAGED:
        for what, rules in (("missing", wanted[bridge] - found[bridge]), ("too much", found[bridge] - wanted[bridge])):
            shown = sorted(rules.elements())
            words += [f"{bridge}: {what}: {rule}" for rule in shown[:most]]
            words += [f"{bridge}: {what}: {len(shown) - most} more"] if len(shown) > most else []
    return words
