"""What a benchmark found: figures with their targets, raw samples, plots; as JSON and Markdown."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Say = Callable[[str], None]
"""Takes a line about how far the work has come."""


class SkippedError(RuntimeError):
    """An experiment cannot be run here, and says what it would need."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`quick` measures smaller and fewer; `repeats` is the number of samples that a median is taken of."""

    out: Path
    quick: bool = False
    repeats: int = 5

    def scaled(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a table. `met` is None where there is no target."""

    what: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None
    note: str = ""


@dataclass(slots=True)
class Report:
    """One experiment's outcome. `samples` holds what the figures were made of."""

    name: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)
    plots: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, value: float, unit: str, note: str = "") -> None:
        self.figures.append(Figure(what, value, unit, note=note))

    def at_least(self, what: str, value: float, unit: str, target: float, note: str = "") -> None:
        """A figure that should not be below `target`."""
        self.figures.append(Figure(what, value, unit, f">= {target:g}", value >= target, note))

    def at_most(self, what: str, value: float, unit: str, target: float, note: str = "") -> None:
        """A figure that should not be above `target`."""
        self.figures.append(Figure(what, value, unit, f"<= {target:g}", value <= target, note))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios of samples taken side by side."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    return {
        "cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
        "load": [round(x, 2) for x in os.getloadavg()],
    }  # fmt: skip


def _lines(path: str) -> list[str]:
    return Path(path).read_text(errors="replace").splitlines()


def write(reports: Iterable[Report], settings: Settings, facts: dict[str, Any]) -> tuple[Path, Path]:
    """bench.json and bench.md in the results directory; experiments that were not run this time keep their place."""
    settings.out.mkdir(parents=True, exist_ok=True)
    as_json, as_markdown = settings.out / "bench.json", settings.out / "bench.md"
    kept = json.loads(as_json.read_text())["experiments"] if as_json.exists() else {}
    for report in reports:
        kept[report.name] = {**asdict(report), "quick": settings.quick, "machine": facts}
    as_json.write_text(json.dumps({"experiments": kept}, indent=1) + "\n")
    as_markdown.write_text("\n".join(markdown(kept)) + "\n")
    return as_json, as_markdown


def markdown(experiments: dict[str, dict[str, Any]]) -> Iterable[str]:
    """A table for each experiment."""
    yield "# Benchmarks"
    for name, report in experiments.items():
        facts = report["machine"]
        yield f"\n## {name}: {report['title']}\n"
        where = f"{facts['cpus']} x {facts['cpu']}, Linux {facts['kernel']}, Python {facts['python']}"
        yield f"{where}, load {facts['load'][0]}{' (quick)' if report['quick'] else ''}\n"
        yield "| what | value | target | met |"
        yield "|---|---|---|---|"
        for figure in report["figures"]:
            met = {None: "", True: "yes", False: "**no**"}[figure["met"]]
            note = f" ({figure['note']})" if figure["note"] else ""
            yield f"| {figure['what']}{note} | {text_of(figure['value'])} {figure['unit']} | {figure['target']} | {met} |"
        for note in report["notes"]:
            yield f"\n{note}"
        for plot in report["plots"]:
            yield f"\n![{name}]({plot})"


def text_of(value: float) -> str:
    """Three digits that count; whole numbers with thousands separators."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
