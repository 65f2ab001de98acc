"""What has to hold at a pause, once the agent has had its time. Written from docs/agent.md; shares no code with the agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from fsctl.errors import FsctlError
from fsctl.model.addresses import format_mac
from fsctl.model.delegations import Delegation
from tests.agent.chaos.draw import DRAWN, INTERFACES, KNOWN
from tests.agent.chaos.kernel_says import Said, version_of
from tests.agent.chaos.obstacles import ALWAYS
from tests.agent.chaos.packets import Cables
from tests.agent.chaos.world import CANARY, World
from tests.agent.kernel import host
from tests.agent.netns import Namespace
from tests.agent.oracle import Answer, lookup

SETTLED_S = 6.0
"""A dump a second after the last, a look a second, a heartbeat that finds the session lost; of fair time."""
HARD_S = 120.0
"""Of plain time; by then something hangs."""
LOOK_S = 0.05
DESTINATIONS = [*DRAWN, "10.77.0.5"]
MARKS = ("extern_learn", "managed", "router", "proxy")


class Judge:
    """Counts what it has compared."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cables = Cables(world.guest, world.hosts)
        self.pauses = self.compared = self.delegated = self.packets = self.neighbours = self.traces = 0
        self.slowest = 0.0

    def close(self) -> None:
        self.cables.close()

    def pause(self, patience_s: float) -> list[str]:
        """Everything that is not as it shall be, in words, after so much fair time at most."""
        self.pauses += 1
        found = self._until(self._tables, patience_s)
        found += self._until(self._packets, patience_s)
        return found + self._until(self._switch, patience_s)

    def _until(self, look: Callable[[], list[str]], patience_s: float) -> list[str]:
        fair, begins, ends = self.world.fair, self.world.fair.now(), time.monotonic() + HARD_S
        while found := self._seen(look):
            if fair.now() - begins > SETTLED_S + patience_s or time.monotonic() > ends:
                return [f"{problem}  (for {fair.now() - begins:.1f} s)" for problem in found]
            time.sleep(LOOK_S)
        self.slowest = max(self.slowest, fair.now() - begins)
        return []

    @staticmethod
    def _seen(look: Callable[[], list[str]]) -> list[str]:
        try:
            return look()
        except FsctlError as e:
            return [f"fsctl does not answer: {e}"]

    # --- what the kernel says, and the twin -----------------------------------------------------------------

    def _tables(self) -> list[str]:
        delegations = self.world.delegations()
        said = Said.by(self.world.guest, DESTINATIONS)
        return [*self._differences(delegations, said), *self._harm()]

    def _differences(self, delegations: list[Delegation], said: Said) -> Iterator[str]:
        is_mute: bool | None = None
        for i, name in KNOWN.items():
            for text in DESTINATIONS:
                mine, theirs = lookup(delegations, name, *host(text)), said.forwarded(i, text)
                self.compared += 1
                self.delegated += mine is not None
                theirs = None if theirs and self._is_refused(version_of(text), name, theirs[0]) else theirs
                if mine == theirs or (mine is None and said.is_special(text)):
                    continue
                neighbour = said.neighbour(i, text)
                if mine is None and neighbour.get("state") == ["STALE"]:
                    is_mute = self._is_mute() if is_mute is None else is_mute
                    if is_mute:
                        continue
                answer = said.answers[i, text]
                yield f"{text} from {name}: delegated {_words(mine)}, the kernel {_words(theirs)} ({answer}, {neighbour})"

    def _is_refused(self, version: int, ingress: str, egress: str) -> bool:
        standing = [obstacle for obstacle, _ in self.world.standing.values()]
        return any(obstacle.forbids(version, ingress, egress) for obstacle in (ALWAYS, *standing))

    def _is_mute(self) -> bool:
        """Whether the agent says that it cannot send to neighbours (no address of its own, say): it trusts no stale one."""
        refused = self.world.agent_status().get("refused", [])
        return any(reason["name"] == "neighbours" for reason in refused)

    def _harm(self) -> Iterator[str]:
        """The agent's router has the neighbours that its twin has, but for what is stated: what ages by itself."""
        mine, theirs = standing(self.world.guest), standing(self.world.twin)
        self.neighbours += len(theirs)
        for key in mine.keys() | theirs.keys():
            if mine.get(key) != theirs.get(key):
                yield f"neighbour {key}: {mine.get(key)}, without an agent {theirs.get(key)}"

    # --- real packets ---------------------------------------------------------------------------------------

    def _packets(self) -> list[str]:
        """What is delegated comes out of the router's kernel just so."""
        before = self.world.delegations()
        pairs = [(i, d) for i in KNOWN for d in DESTINATIONS]
        seen = self.cables.forwarded(pairs)
        after = self.world.delegations()
        found = []
        for i, text in pairs:
            mine = lookup(before, KNOWN[i], *host(text))
            if mine is not None and mine == lookup(after, KNOWN[i], *host(text)):
                self.packets += 1
                if seen.get((i, text)) != mine:
                    found.append(f"a packet for {text} into {i}: delegated {_words(mine)}, it went {_words(seen.get((i, text)))}")
        return found

    # --- the switch -----------------------------------------------------------------------------------------

    def _switch(self) -> list[str]:
        """The switch does with a packet what fsctl says is delegated."""
        delegated = lookup(self.world.delegations(), "eth0", *host("10.77.0.5"))
        self.traces += 1
        is_bypassed = self.world.is_canary_bypassed()
        if is_bypassed == bool(delegated):
            return []
        return [f"{CANARY} is delegated {_words(delegated)}, bypassed by the switch: {is_bypassed}"]


def standing(ns: Namespace) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Of each neighbour what does not change by itself: whether it is permanent, a permanent one's MAC address, flags."""
    found = {}
    for n in ns.json("neigh show"):
        is_permanent = n.get("state") == ["PERMANENT"]
        if n.get("dev") in INTERFACES:
            marks = (is_permanent, n.get("lladdr") if is_permanent else None, *(mark in n for mark in MARKS))
            found[n["dst"], n["dev"]] = marks
    return {key: marks for key, marks in found.items() if any(marks)}


def _words(answer: Answer) -> str:
    return f"{answer[0]} {format_mac(answer[1])}" if answer else "not"
