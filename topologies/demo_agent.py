"""The demo of fsctl-agent: three routers run OSPF (FRR) and delegate by themselves. `sudo make demo-agent`.

Nothing is delegated by hand. OSPF converges and the chain collapses to one rule; a link is cut, with the bypass and
without, in turns; a router gets a firewall; a router dies.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsctl.errors import FsctlError
from topologies import frr
from topologies.demo import RESULTS, Progress
from topologies.lab import Lab
from topologies.ovs import OpenVSwitch
from topologies.processes import LabError, run
from topologies.scenes import LEFT, MIDDLE, RIGHT, Convergence, Cut, Death, Firewall, scenes
from topologies.topos import Detour


@dataclass(frozen=True, slots=True)
class Result:
    """All scenes; `cuts` alternate between routed and bypassed."""

    convergence: Convergence
    cuts: list[Cut]
    firewall: Firewall
    death: Death


def play(ovs: OpenVSwitch, rounds: int, say: Callable[[str], None]) -> Result:
    """Bring up the network and go through the scenes."""
    say("three routers, five bridges, controller")
    with Lab(Detour(), ovs) as lab, scenes(lab, say) as show:
        convergence = show.converge()
        say(f"one rule after {convergence.bypass_s:.1f} s: {convergence.rule}")
        cuts = []
        for turn in range(rounds):
            for bypassed in (False, True):
                say(f"link {LEFT}-{MIDDLE} cut, {_mode(bypassed)}, round {turn + 1} of {rounds}")
                cuts.append(show.cut(bypassed))
        say(f"a firewall rule in {MIDDLE}")
        firewall = show.firewall()
        say(f"{MIDDLE} is killed; its lease runs out")
        return Result(convergence, cuts, firewall, show.death())


def _mode(bypassed: bool) -> str:
    return "bypassed" if bypassed else "routed"


def report(result: Result) -> str:
    """What happened, for a reader at a terminal."""
    found, wall, death = result.convergence, result.firewall, result.death
    lines = [
        f"A - [b0] - {LEFT} - [b1] - {MIDDLE} - [b2] - {RIGHT} - [b3] - B; {LEFT} - [b4] - {RIGHT} around the middle; OSPF (FRR)",
        "",
        "1. OSPF converges, the routers delegate by themselves",
        f"   routes {found.ospf_s:.1f} s after FRR's start, one rule for the chain {found.bypass_s:.1f} s after the agents'",
        f"   delegations: {', '.join(f'{name} {count}' for name, count in found.delegations.items())}; none by hand",
        f"   {found.rule}",
        "",
        f"2. The link {LEFT}-{MIDDLE} is cut, OSPF takes the other way",
        *_cut_lines(result.cuts),
        "",
        f"3. {MIDDLE} is killed (SIGKILL to agent, zebra, ospfd; it forwards nothing any more)",
        f"   its {death.flows_before} flows were gone after {death.withdrawn_s:.1f} s, lease {death.lease_s:g} s; "
        f"by OSPF the chain goes around it after {death.rerouted_s:.1f} s; lost {death.lost} of {death.sent}",
        f"   {death.rule}",
        "",
        f"4. A firewall rule in {MIDDLE} (nft: udp dport 9999 drop)",
        f"   {MIDDLE}'s bypass ended {wall.ended_ms:.0f} ms after nft's return, the last packet past the firewall arrived "
        f"{wall.leaked_ms:.0f} ms after it",
        f"   GET /v1/routers/{MIDDLE} showed the reason after {wall.shown_ms:.0f} ms",
        f"   reason: {wall.reason}",
        f"   {wall.rule}",
        f"   rule removed: the whole chain in one rule again after {wall.returned_ms:.0f} ms",
    ]
    return "\n".join(lines)


def _cut_lines(cuts: Sequence[Cut]) -> list[str]:
    lines = []
    for bypassed in (False, True):
        some = [cut for cut in cuts if cut.bypassed is bypassed]
        route = statistics.median(cut.route_ms for cut in some)
        line = f"   {_mode(bypassed):9} kernel's new route {route:4.0f} ms after the cut"
        delays = [cut.rule_ms for cut in some if cut.rule_ms is not None]
        if delays:
            line += f", new rule in Open vSwitch {statistics.median(delays):.0f} ms after that ({_list(delays)})"
        lines.append(f"{line}; lost {', '.join(str(cut.lost) for cut in some)} packets at 500 per second")
    return [*lines, f"   {cuts[-1].rule}"]


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def document(result: Result, ovs: OpenVSwitch) -> dict[str, Any]:
    """The results and what they were measured on."""
    version = run("ovs-vswitchd", "--version").splitlines()[0]
    daemon = run(str(frr.DAEMONS / "ospfd"), "--version").splitlines()[0]
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "kernel": platform.release(), "cpus": os.cpu_count(), "open_vswitch": version, "datapath": ovs.datapath,
            "frr": daemon,
        },
        **asdict(result),
    }  # fmt: skip


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="fsctl demo-agent", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often the link is cut in each mode (default: 3)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help=f"default: {RESULTS}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the report")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Play, report, and write `demo-agent.json` and `demo-agent.txt`."""
    args = arguments(sys.argv[1:] if argv is None else argv)
    say = Progress().say
    try:
        frr.require()
        with OpenVSwitch() as ovs:
            say("a private Open vSwitch" if ovs.is_private else "the Open vSwitch that runs, with bridges of our own")
            result = play(ovs, args.rounds, say)
            summary = document(result, ovs)
    except (LabError, FsctlError) as e:
        print(f"demo-agent: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo-agent: interrupted; all that it made is removed", file=sys.stderr)
        return 130
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "demo-agent.json").write_text(json.dumps(summary, indent=2) + "\n")
    (args.results / "demo-agent.txt").write_text(report(result) + "\n")
    print(json.dumps(summary) if args.json else report(result))
    say(f"results: {args.results / 'demo-agent.json'} and {args.results / 'demo-agent.txt'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
