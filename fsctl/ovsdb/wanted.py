"""What the controller wants of the database."""

from __future__ import annotations

from dataclasses import dataclass

from fsctl.ovsdb.marks import Pair


@dataclass(frozen=True, slots=True)
class Wanted:
    """`bridges` are the managed ones; None: not known yet, so nothing is written.

    `controller` is where fsctl listens. `links` None: not known yet, so no link is made or removed.
    `may_release`: bridges that are not managed any more may lose fsctl's settings and links.
    """

    bridges: frozenset[str] | None = None
    controller: str | None = None
    links: frozenset[Pair] | None = None
    may_release: bool = False

    def manages(self, bridge: str) -> bool:
        return self.bridges is not None and bridge in self.bridges
