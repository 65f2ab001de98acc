"""What is expected at a moment when the adversary pauses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pause:
    """What holds now, after the stated time and `extra` seconds.

    `same_rules`: the switch holds the rules of before. `bypassed`: no router sees a plain packet that it has delegated;
    `left`: these routers see all of theirs. `ready`: the controller says so. `packets`: both worlds deliver the same.
    `controller`: it is there to be asked. `installed`: nothing but delegations decides what is bypassed.
    """

    extra: float = 0.0
    same_rules: bool = False
    bypassed: bool = False
    ready: bool = False
    packets: bool = True
    left: frozenset[str] = frozenset()
    controller: bool = True
    installed: bool = True

    def along(self, other: Pause) -> Pause:
        """What may be expected of both at once."""
        return Pause(
            max(self.extra, other.extra), self.same_rules and other.same_rules, self.bypassed and other.bypassed,
            self.ready and other.ready, self.packets and other.packets, self.left | other.left,
            self.controller and other.controller, self.installed and other.installed,
        )  # fmt: skip


WELL = Pause(same_rules=True, bypassed=True, ready=True)
