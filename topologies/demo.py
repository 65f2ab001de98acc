"""The demo: a chain of 1 and of 4 virtual routers, measured routed, bypassed, and as plain L2 bridging.

`sudo make demo`. The three modes take turns within one run and between the same two hosts, so that what else the
machine does falls on all of them. Plain bridging of A and B, over a bridge of its own, is the ceiling: no
bypass can be faster than passing a packet on unchanged.
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

from rich import box
from rich.console import Console
from rich.table import Table

from fsctl.errors import FsctlError
from topologies import measure
from topologies.lab import Lab
from topologies.ovs import OpenVSwitch
from topologies.processes import LabError, run
from topologies.topos import Measured

ROUTED, BYPASSED, CEILING = "routed", "bypassed", "plain L2"
MODES = (ROUTED, BYPASSED, CEILING)
RESULTS = Path(__file__).resolve().parent.parent / "results"
A, B = "a", "b"


@dataclass(frozen=True, slots=True)
class Sample:
    """One mode's figures: packets/s of 64-byte UDP, bit/s of one TCP connection, median round-trip time in ms."""

    udp_pps: float
    tcp_bps: float
    rtt_ms: float


@dataclass(frozen=True, slots=True)
class ChainResult:
    """One chain length. `samples`: one per round; `rules` are those that carry A to B, before and after delegating."""

    routers: int
    samples: dict[str, list[Sample]]
    rules: dict[str, list[str]]
    traces: dict[str, list[str]]

    def median(self, mode: str) -> Sample:
        """Field by field, over the rounds."""
        columns = zip(*(asdict(s).values() for s in self.samples[mode]), strict=True)
        return Sample(*(statistics.median(column) for column in columns))


class Progress:
    """Lines on standard error, with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:4.0f} s] {text}", file=sys.stderr, flush=True)


def measure_chain(ovs: OpenVSwitch, routers: int, rounds: int, seconds: float, say: Callable[[str], None]) -> ChainResult:
    """Bring up a chain, and measure the three modes in turn, `rounds` times."""
    say(f"chain of {routers}: namespaces, bridges, controller")
    with Lab(Measured(n=routers), ovs) as lab:
        lab.start_controller()
        samples: dict[str, list[Sample]] = {mode: [] for mode in MODES}
        rules, traces = {}, {}
        for turn in range(rounds):
            for mode in MODES:
                say(f"chain of {routers}: {mode}, round {turn + 1} of {rounds}")
                if mode == ROUTED:
                    lab.withdraw()
                elif mode == BYPASSED:
                    lab.delegate()
                samples[mode].append(_sample(lab, mode, seconds))
                if turn == 0 and mode != CEILING:
                    rules[mode] = _rules(lab)
                    traces[mode] = measure.trace(lab[A], lab.address(B))
        return ChainResult(routers, samples, rules, traces)


def _sample(lab: Lab, mode: str, seconds: float) -> Sample:
    address = lab.address(B, number=1 if mode == CEILING else 0)
    rtt = measure.round_trip_ms(lab[A], address)
    udp = measure.udp_rate(lab[A], lab[B], address, seconds)
    return Sample(udp, measure.tcp_throughput(lab[A], lab[B], address, seconds), rtt)


def _rules(lab: Lab) -> list[str]:
    """Where A's packets to B enter: every rule for B's address that fsctl has put on A's bridge."""
    bridge = lab.topo.stations[A].ports[0].bridge
    rules = lab.control.client.rules(lab.bridge(bridge)) if lab.control else []
    lines = []
    for rule in rules:
        if rule["match"].get("ipv4_dst") == lab.address(B):
            hops = " > ".join(hop["router"] for hop in rule["chain"])
            lines.append(f"{rule['text']}   ({hops})")
    return lines or ["(none but the table's own last rule: to the router, as a learning switch does)"]


# Showing


FIGURES = {
    "udp_pps": ("UDP 64 B, kpkt/s", 1e3, ".1f"),
    "tcp_bps": ("TCP, Mbit/s", 1e6, ",.0f"),
    "rtt_ms": ("ping, ms", 1, ".3f"),
}
"""Sample's field -> (title, its unit, format)."""


def table(results: Sequence[ChainResult]) -> Table:
    """All figures, each with its ratio to routed and to the ceiling."""
    title = "From A to B: medians, each with its ratio to routed and to plain L2"
    view = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    view.add_column("routers", justify="right", no_wrap=True)
    view.add_column("mode", no_wrap=True)
    for name, _, _ in FIGURES.values():
        for column in (name.replace(", ", "\n"), "to\nrouted", "to\nL2"):
            view.add_column(column, justify="right", no_wrap=True)
    for result in results:
        routed, ceiling = asdict(result.median(ROUTED)), asdict(result.median(CEILING))
        for mode in MODES:
            cells = []
            for name, value in asdict(result.median(mode)).items():
                _, unit, form = FIGURES[name]
                cells += [format(value / unit, form), f"{value / routed[name]:.2f}", f"{value / ceiling[name]:.2f}"]
            view.add_row(str(result.routers), mode, *cells, end_section=mode == CEILING)
    return view


def show(console: Console, results: Sequence[ChainResult]) -> None:
    """The table, then rules and traceroute of each chain."""
    console.print(table(results))
    for result in results:
        hops = "one hop" if result.routers == 1 else f"{result.routers} hops"
        console.print(f"\nChain of {result.routers}, A to B ({hops} in one rule). Rules for B on A's bridge:", style="bold")
        for when, mode in (("before", ROUTED), ("after", BYPASSED)):
            for line in result.rules[mode]:
                console.print(f"  {when:7}{line}", soft_wrap=True, markup=False, highlight=False)
        for mode in (ROUTED, BYPASSED):
            console.print(f"  traceroute, {mode}: {' '.join(result.traces[mode])}", markup=False, highlight=False)


def document(results: Sequence[ChainResult], ovs: OpenVSwitch, seconds: float) -> dict[str, Any]:
    """The results and what they were measured on."""
    version = run("ovs-vswitchd", "--version").splitlines()[0]
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"kernel": platform.release(), "cpus": os.cpu_count(), "open_vswitch": version, "datapath": ovs.datapath},
        "seconds_per_measurement": seconds,
        "medians": [{"routers": r.routers, **{mode: asdict(r.median(mode)) for mode in MODES}} for r in results],
        "chains": [asdict(r) for r in results],
    }


def plot(results: Sequence[ChainResult], path: Path) -> None:
    """Three bar charts side by side: one bar per chain length and mode."""
    import matplotlib as mpl  # noqa: PLC0415 - takes a second, which nobody shall wait for before the first line

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, len(FIGURES), figsize=(12, 4))
    for axis, (name, (title, unit, _)) in zip(axes, FIGURES.items(), strict=True):
        for n, mode in enumerate(MODES):
            values = [asdict(r.median(mode))[name] / unit for r in results]
            axis.bar([k + (n - 1) * 0.28 for k in range(len(results))], values, width=0.26, label=mode)
        axis.set_title(title)
        axis.set_xticks(range(len(results)), [f"{r.routers} router{'s' if r.routers > 1 else ''}" for r in results])
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="fsctl demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routers", type=int, nargs="+", default=[1, 4], metavar="N", help="chain lengths (default: 1 4)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each mode is measured (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement (default: 2)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help=f"default: {RESULTS}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show, and write `demo.json` and `demo.png`."""
    args = arguments(sys.argv[1:] if argv is None else argv)
    say = Progress().say
    console = Console(width=None if sys.stdout.isatty() else 100)
    try:
        with OpenVSwitch() as ovs:
            say("a private Open vSwitch" if ovs.is_private else "the Open vSwitch that runs, with bridges of our own")
            results = [measure_chain(ovs, n, args.rounds, args.seconds, say) for n in args.routers]
            summary = document(results, ovs, args.seconds)
    except (LabError, FsctlError) as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; all that it made is removed", file=sys.stderr)
        return 130
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "demo.json").write_text(json.dumps(summary, indent=2) + "\n")
    plot(results, args.results / "demo.png")
    if args.json:
        print(json.dumps(summary))
    else:
        show(console, results)
    say(f"results: {args.results / 'demo.json'} and {args.results / 'demo.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
