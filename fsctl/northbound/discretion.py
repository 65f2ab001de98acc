"""What a router is told: of itself all, of others nothing (docs/security.md).

How long a chain is, and why it ends, depends on what other routers have delegated. A router knows its own delegations and
the bridges that it is plugged into; what comes after its next hop is not its business.
"""

from __future__ import annotations

import re
from dataclasses import replace

from fsctl.model.network import Network
from fsctl.status import FlowStatus, WriteResult

BEHIND = "what follows its next hop cannot be bypassed together with it"
OTHERS = "another bridge"
_WORD = re.compile(r"[^\s,;()]+")


class Discretion:
    """What one router may be told, in one network."""

    def __init__(self, network: Network, router: str) -> None:
        own = network.routers[router].interfaces.values()
        self._bridges = {i.bridge for i in own}
        ports = {i.port for i in network.interfaces() if i.router != router and i.port} - {i.port for i in own}
        self._others = ports | {name for name in network.routers if name != router} | (network.bridges.keys() - self._bridges)

    def flow(self, status: FlowStatus) -> FlowStatus:
        """A flow's status without what it tells of others."""
        return replace(status, hops=min(status.hops, 1), reason=self._reason(status.reason))

    def result(self, result: WriteResult) -> WriteResult:
        """A write's result that names no bridge which the router is not plugged into."""
        named = tuple(b for b in result.waiting_for if b in self._bridges)
        others = (OTHERS,) if len(named) < len(result.waiting_for) else ()
        return replace(result, waiting_for=named + others)

    def _reason(self, reason: str) -> str:
        """The reason, if it names nobody else. Of the operator's rules it is told only that there is one."""
        if "somebody else" in reason:
            return reason.partition(": ")[0]
        words = {part for word in _WORD.findall(reason) for part in (word.strip(":."), word.partition(".")[0])}
        return BEHIND if words & self._others else reason
