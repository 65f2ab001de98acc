"""The host of tests/faults with more routers: a pair for each client that sends at the same time.

A - b0 - r1, r3, ... - b1 - r2, r4, ... - b2 - B
"""

from __future__ import annotations

from typing import Any

from tests.faults.host import BRIDGES, MAC, Host

PAIRS = 3
ROUTERS = tuple(f"r{n}" for n in range(1, 2 * PAIRS + 1))
ODD, EVEN = ("b0", "b1"), ("b1", "b2")


def _mac(number: int, interface: int) -> str:
    return f"02:00:00:00:{number:02x}:{0xF0 + interface:02x}"


NEXT_HOPS = (MAC["a"], MAC["b"], *(_mac(number, 0) for number in range(2, 2 * PAIRS + 1, 2)))
"""What stands behind b0 and b2, and the second routers of all pairs: so chains lead from anybody to anybody."""


def pair(number: int) -> tuple[str, str]:
    """The routers of a client."""
    return ROUTERS[2 * number], ROUTERS[2 * number + 1]


class Crowd(Host):
    """Many routers on three bridges."""

    @staticmethod
    def _config() -> dict[str, Any]:
        used = dict.fromkeys(BRIDGES, 1)  # port 1 of b0 is A's
        routers: dict[str, Any] = {}
        for number, name in enumerate(ROUTERS, 1):
            interfaces = {}
            for i, bridge in enumerate(ODD if number % 2 else EVEN):
                used[bridge] += 1
                interfaces[f"eth{i}"] = {"bridge": bridge, "port": f"{bridge}-p{used[bridge]}", "mac": _mac(number, i)}
            routers[name] = {"interfaces": interfaces}
        return {"bridges": list(BRIDGES), "routers": routers}
