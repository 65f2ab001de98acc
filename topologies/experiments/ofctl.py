"""The yardstick of an installation: `ovs-ofctl --bundle add-flows` of the same rules into fresh bridges."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from topologies.ovs import LabError
from topologies.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class Dump:
    """What a bridge holds, as ovs-ofctl reads it."""

    groups: list[str]
    flows: list[str]


def dump(ovs: Sandbox, bridge: str) -> Dump:
    """All groups and flows, without counters."""
    groups = [line.strip() for line in ovs.ofctl("dump-groups", bridge).splitlines() if "group_id=" in line]
    flows = [line.strip() for line in ovs.ofctl("dump-flows", bridge, "--no-stats").splitlines() if "actions=" in line]
    return Dump(groups, flows)


class Yardstick:
    """Installs dumps into fresh bridges, as a script would (one ovs-ofctl after the other), or all at once."""

    def __init__(self, ovs: Sandbox, dumps: dict[str, Dump], directory: Path) -> None:
        self._ovs, self._dumps = ovs, dumps
        self._files: dict[str, tuple[Path, Path]] = {}
        for bridge, found in dumps.items():
            groups, flows = directory / f"{bridge}.groups", directory / f"{bridge}.flows"
            groups.write_text("".join(f"{line}\n" for line in found.groups))
            flows.write_text("".join(f"{line}\n" for line in found.flows))
            self._files[bridge] = groups, flows

    @property
    def rules(self) -> int:
        return sum(len(found.flows) for found in self._dumps.values())

    def measure(self, *, together: bool = False) -> float:
        """Seconds until OVS has confirmed every rule; the fresh bridges are removed afterwards."""
        fresh = {bridge: f"y{bridge}" for bridge in self._dumps}
        for bridge in fresh.values():
            self._ovs.add_bridge(bridge, ports=3)
        try:
            start = time.monotonic()
            for bridge, name in fresh.items():
                if self._dumps[bridge].groups:
                    self._ovs.ofctl("add-groups", name, str(self._files[bridge][0]))
            running = []
            for bridge, name in fresh.items():
                running.append(self._add_flows(name, self._files[bridge][1]))
                if not together:
                    _finish(running.pop())
            for process in running:
                _finish(process)
            return time.monotonic() - start
        finally:
            for bridge in fresh.values():
                self._ovs.del_bridge(bridge)

    def _add_flows(self, bridge: str, flows: Path) -> subprocess.Popen[str]:
        command = ["ovs-ofctl", "-O", "OpenFlow14", "--bundle", "add-flows", f"unix:{self._ovs.management(bridge)}", str(flows)]
        return subprocess.Popen(command, env=self._ovs.env, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> None:
    _, error = process.communicate()
    if process.returncode:
        raise LabError(f"ovs-ofctl --bundle add-flows: {error.strip()}")
