"""A lab's results as JSON, as plots drawn like the paper's figures 6 and 7, and as a Markdown page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from topologies.labs.measure import RTT, TCP, UDP, Run
from topologies.labs.plan import DIRECT

PAPER = {TCP: 1.4, UDP: 2.4}
"""Flow switch to plain Xen 3.2.1 on a Core 2 Duo, one router: figures 6 and 7 of the paper."""
LABELS = {TCP: "TCP throughput (Mbit/s)", UDP: "UDP packet rate (packets/s)", RTT: "round-trip time (ms)"}


def save(runs: Sequence[Run], conditions: dict[str, Any], folder: Path, name: str) -> Path:
    """`<folder>/<name>.json`: everything that was measured, and under which conditions."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"conditions": conditions, "runs": [run.to_json() for run in runs]}, indent=1) + "\n")
    return path


def load(path: Path) -> tuple[list[Run], dict[str, Any]]:
    """What `save` wrote."""
    value = json.loads(path.read_text())
    return [Run.from_json(run) for run in value["runs"]], value["conditions"]


def sizes(run: Run, kind: str) -> list[int]:
    """The sizes measured, smallest first."""
    return sorted({s.size for s in run.samples if s.kind == kind})


def chains(run: Run) -> list[int]:
    return sorted({s.chain for s in run.samples} - {DIRECT})


def _lines(run: Run) -> Iterable[tuple[str, int, bool, str]]:
    """(label, chain, bypass, matplotlib format) of every path."""
    yield "plain L2 (no router)", DIRECT, False, "k--"
    for chain in chains(run):
        routers = f"{chain} router{'s' if chain > 1 else ''}"
        yield f"{routers}, flow switch", chain, True, f"C{chain - 1}o-"
        yield f"{routers}, routed", chain, False, f"C{chain - 1}x:"


def plot(run: Run, kind: str, path: Path) -> None:
    """Figure 6 (TCP over message sizes) or 7 (UDP packets over frame sizes) as PNG."""
    import matplotlib as mpl  # noqa: PLC0415 - heavy, and only needed here

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    at = sizes(run, kind)
    for label, chain, bypass, style in _lines(run):
        axes.plot(at, [run.median(kind, chain, bypass, size) for size in at], style, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(at, [str(size) for size in at])
    axes.set_xlabel("message size (bytes)" if kind == TCP else "packet size (bytes)")
    axes.set_ylabel(LABELS[kind])
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title(run.setting, fontsize="medium")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def summary(run: Run) -> str:
    """One row per path length: largest messages, smallest packets, round trips; with ratios to routed and to plain L2."""
    big, small = sizes(run, TCP)[-1], sizes(run, UDP)[0]
    rows = []
    for chain in chains(run):
        row = [str(chain)]
        for kind, size in ((TCP, big), (UDP, small), (RTT, 0)):
            routed, bypassed = (run.median(kind, chain, on, size) for on in (False, True))
            row += [f"{_number(routed)} → {_number(bypassed)}", f"**{run.ratio(kind, chain, size):.2f}**"]
            ceiling = run.median(kind, DIRECT, False, size)
            row += [f"{ceiling / bypassed if kind == RTT else bypassed / ceiling:.2f}"]
        rows.append(row)
    head = ["routers", f"TCP Mbit/s ({big}-byte messages)", "ratio", "of L2", f"UDP packets/s ({small} bytes)", "ratio", "of L2"]
    return table([*head, "RTT ms", "ratio", "of L2"], rows)


def sweep(run: Run, kind: str) -> str:
    """All sizes of one kind: routed → bypassed for every chain, and plain L2."""
    rows = []
    for size in sizes(run, kind):
        row = [str(size), _number(run.median(kind, DIRECT, False, size))]
        for chain in chains(run):
            routed, bypassed = (run.median(kind, chain, on, size) for on in (False, True))
            row.append(f"{_number(routed)} → {_number(bypassed)} (**{bypassed / routed:.2f}**)")
        rows.append(row)
    return table(["bytes", "plain L2", *(f"{chain} router{'s' * (chain > 1)}" for chain in chains(run))], rows)


def seen_by_routers(run: Run) -> str:
    """How many packets the routers forwarded while bypassed, and the TTLs at the receiver."""
    rows = []
    for chain in chains(run):
        bypassed = [s for s in run.samples if s.bypass and s.chain == chain]
        ttls = sorted({ttl for s in run.samples if s.ttl and s.chain == chain for ttl in s.ttl})
        routed = sum(s.forwarded for s in run.samples if not s.bypass and s.chain == chain)
        row = [chain, f"{routed:,}", sum(s.forwarded for s in bypassed), f"{64 - chain}", ", ".join(map(str, ttls))]
        rows.append([str(cell) for cell in row])
    return table(["routers", "forwarded, routed", "forwarded, bypassed", "TTL due at B", "TTL seen, routed and bypassed"], rows)


def page(title: str, intro: str, sections: Iterable[tuple[str, str]], path: Path) -> None:
    """A Markdown page; what it says in numbers comes from the run alone."""
    parts = [f"# {title}\n", intro.strip() + "\n"]
    parts += [f"## {heading}\n\n{text.strip()}\n" for heading, text in sections]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts))


def plots(run: Run, folder: Path, name: str, say: Callable[[str], None] = lambda _: None) -> str:
    """Both figures beside the page, and the Markdown that shows them."""
    shown = []
    for kind, figure in ((TCP, "figure 6"), (UDP, "figure 7")):
        path = folder / f"{name}-{'throughput' if kind == TCP else 'packet-rate'}.png"
        plot(run, kind, path)
        say(f"plot: {path}")
        shown.append(f"![{LABELS[kind]}, as the paper's {figure}]({path.name})\n")
    return "\n".join(shown)
