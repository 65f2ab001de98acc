"""`python -m topologies.experiments [--quick] [--only NAME ...]`: run them, write results/bench.{json,md} and plots."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from topologies.experiments.report import Report, Say, Settings, SkippedError, machine, text_of, write

EXPERIMENTS = (
    "collapse", "install", "change", "withdrawal", "assured", "agent", "restart", "rest", "tenants", "rate", "cache", "lookup",
    "firstpacket", "ovn", "peers",
)  # fmt: skip
"""Modules of this package, each with `run(settings, say)`; in the order of a full run."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m topologies.experiments", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tables, few samples: to see that everything works")
    parser.add_argument("--only", action="append", choices=EXPERIMENTS, metavar="NAME", help=f"one of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--repeats", type=int, default=None, help="samples that a median is taken of (5; with --quick 2)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="directory of the results (results)")
    return parser


def _run_one(name: str, settings: Settings, say: Say) -> Report:
    run: Callable[[Settings, Say], Report] = importlib.import_module(f"topologies.experiments.{name}").run
    return run(settings, say)


def main() -> int:
    """0 if all experiments could be run, whatever they found."""
    args = parser().parse_args()
    console = Console()
    settings = Settings(args.out, args.quick, args.repeats or (2 if args.quick else 5))
    names = args.only or EXPERIMENTS
    failed = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(names))
        for name in names:
            started, facts = time.monotonic(), machine()
            try:
                report = _run_one(name, settings, lambda line, name=name: progress.update(task, description=f"{name}: {line}"))  # type: ignore[misc]
            except SkippedError as e:
                console.print(f"{name} is left out: {e}", highlight=False)
                continue
            except (RuntimeError, OSError) as e:
                console.print(f"[red]{name}: {e}", markup=True, highlight=False)
                failed.append(name)
                continue
            finally:
                progress.advance(task)
            write([report], settings, facts)
            console.print(f"[bold]{name}[/] ({time.monotonic() - started:.0f} s)")
            for figure in report.figures:
                mark = {None: " ", True: "[green]+[/]", False: "[red]-[/]"}[figure.met]
                console.print(f" {mark} {figure.what}: {text_of(figure.value)} {figure.unit} {figure.target}", highlight=False)
    console.print(f"results in {settings.out}/bench.md, bench.json" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
