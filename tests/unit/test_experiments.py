"""What benchmarks make of their samples."""

from __future__ import annotations

import json
from pathlib import Path

from fsctl.collapse.compiler import Compiler
from fsctl.model.addresses import IPV4
from topologies.experiments.collapse import chain
from topologies.experiments.plots import Line, Panel, draw
from topologies.experiments.report import Report, Settings, median_ratio, percentile, text_of, write


def test_percentile_is_a_value_that_was_seen() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, p) for p in (0, 1, 50, 99, 100)] == [1, 1, 50, 99, 100]
    assert percentile([3.0], 99) == 3.0


def test_ratios_are_taken_pair_by_pair() -> None:
    # Twice as fast in each pair, though the machine became ten times slower meanwhile.
    assert median_ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == 2.0


def test_numbers_are_readable() -> None:
    assert [text_of(v) for v in (123456.7, 999.4, 0.01234, 0.0)] == ["123,457", "999", "0.0123", "0"]


def _report(name: str, value: float) -> Report:
    report = Report(name, "what is measured", plots=[f"{name}.png"], notes=["A remark."])
    report.at_least("speed", value, "rules/s", 100, "a note")
    report.at_most("time", value, "s", 100)
    report.add("size", value, "rules")
    return report


def test_results_say_what_was_met_and_keep_other_experiments(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    facts = {"cpus": 2, "cpu": "a CPU", "kernel": "6", "python": "3.11", "load": [0.5, 0, 0]}
    write([_report("one", 150.0)], settings, facts)
    as_json, as_markdown = write([_report("two", 50.0)], settings, facts)
    found = json.loads(as_json.read_text())["experiments"]
    assert [(name, [f["met"] for f in e["figures"]]) for name, e in found.items()] == [
        ("one", [True, False, None]),
        ("two", [False, True, None]),
    ]
    lines = as_markdown.read_text().splitlines()
    assert "| speed (a note) | 150 rules/s | >= 100 | yes |" in lines
    assert "| time | 150 s | <= 100 | **no** |" in lines
    assert "![two](two.png)" in lines
    assert "A remark." in lines


def test_the_benchmarks_chain_collapses_to_one_rule_for_each_prefix_and_router() -> None:
    compiler = Compiler(chain(4, 20))
    rules = {node.interface.router: node.rules for node in compiler.graphs[IPV4].nodes if node.interface.name == "eth0"}
    assert {name: len(found) for name, found in rules.items()} == dict.fromkeys(("r1", "r2", "r3", "r4"), 20)
    hops = {name: {effect.hops for effect in found.values()} for name, found in rules.items()}
    assert hops == {"r1": {4}, "r2": {3}, "r3": {2}, "r4": {1}}


def test_plots_are_png_files(tmp_path: Path) -> None:
    lines = [Line("a", [1, 10, 1000], [1, 2, 3]), Line("nothing", [], [])]
    panels = [Panel("x", "y", lines), Panel("n", "rate", [], is_log=False)]
    name = draw(tmp_path / "deeper" / "plot.png", "A title", panels)
    assert (tmp_path / "deeper" / name).read_bytes().startswith(b"\x89PNG")
