"""Line plots as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib import ticker

MARKERS = "osD^vP*X"
PLAIN = ticker.StrMethodFormatter("{x:,g}")


@dataclass(frozen=True, slots=True)
class Line:
    """One curve; `style` is matplotlib's line style."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "-"


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes. `from_zero`: values from zero on, not their logarithms, so that what is nearly alike looks alike."""

    x_label: str
    y_label: str
    lines: Sequence[Line]
    is_log: bool = True
    from_zero: bool = False


def draw(path: Path, title: str, panels: Sequence[Panel]) -> str:
    """Draw the panels, up to three in a row; the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    size = (5.2 * columns, 4.2 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis, panel in zip(axes.flat, panels, strict=True):
        for line, marker in zip(panel.lines, MARKERS, strict=False):
            if line.x:
                axis.plot(line.x, line.y, line.style, marker=marker, markersize=4, label=line.label)
        _scales(axis, panel)
        axis.set_xlabel(panel.x_label)
        axis.set_ylabel(panel.y_label)
        axis.grid(visible=True, alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path.name


def _scales(axis: Any, panel: Panel) -> None:
    """Logarithmic ones with the numbers themselves beside them, not their powers."""
    if panel.is_log:
        places = sorted({x for line in panel.lines for x in line.x})
        axis.set_xscale("log", base=10 if max(places, default=1) > 100 else 2)
        axis.xaxis.set_major_formatter(PLAIN)
    if panel.is_log and not panel.from_zero:
        axis.set_yscale("log")
        values = [y for line in panel.lines for y in line.y if y > 0]
        axis.yaxis.set_major_formatter(PLAIN)
        is_narrow = bool(values) and max(values) < 20 * min(values)
        axis.yaxis.set_minor_formatter(PLAIN if is_narrow else ticker.NullFormatter())
    else:
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(PLAIN)
