"""Line plots as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

MARKERS = "osD^vP*X"


@dataclass(frozen=True, slots=True)
class Line:
    """One curve; `style` is matplotlib's line style."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "-"


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes."""

    x_label: str
    y_label: str
    lines: Sequence[Line]
    is_log: bool = True


def draw(path: Path, title: str, panels: Sequence[Panel]) -> str:
    """Draw the panels side by side; the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4.2), squeeze=False, layout="constrained")
    for axis, panel in zip(axes[0], panels, strict=True):
        for line, marker in zip(panel.lines, MARKERS, strict=False):
            if line.x:
                axis.plot(line.x, line.y, line.style, marker=marker, markersize=4, label=line.label)
        if panel.is_log:
            axis.set_xscale("log", base=10 if max(max(line.x, default=1) for line in panel.lines) > 100 else 2)
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.set_xlabel(panel.x_label)
        axis.set_ylabel(panel.y_label)
        axis.grid(visible=True, alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path.name
