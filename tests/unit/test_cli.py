"""The command line: what is typed, what is printed, and the exit code."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fsctl.cli import main
from fsctl.errors import InvalidError
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import Match
from fsctl.status import Failure, Orphan, SessionRequest, WriteResult
from tests.rest.conftest import flow
from tests.rest.fake import FakeBackend
from tests.rest.server import serving
from tests.unit.test_config import GOOD

ADD = ["flows", "add", "vr1", "--in", "eth0", "--dst", "10.0.2.0/24", "--out", "eth1", "--eth-dst", "02:00:00:00:02:01"]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBackend]:
    backend = FakeBackend()
    with serving(backend) as url:
        monkeypatch.setenv("FSCTL_URL", url)
        monkeypatch.setenv("FSCTL_TOKEN", "admin-token")
        monkeypatch.delenv("FSCTL_TOKEN_FILE", raising=False)
        yield backend


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def run_json(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    code, out, err = run(capsys, "--json", *argv)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_add_list_remove(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *ADD) == (0, "revision 1: 1 added, 0 changed, 0 removed, 0 unchanged\n", "")
    _, out, _ = run(capsys, "flows", "list", "vr1")
    header, row = out.splitlines()
    assert header.split() == ["MATCH", "VERDICT", "STATE", "HOPS", "PACKETS", "BYTES", "REASON"]
    assert row.split() == ["eth0", "10.0.2.0/24", "eth1", "02:00:00:00:02:01", "installed", "1", "1200", "117600"]
    assert run(capsys, "flows", "remove", "vr1", "--in", "eth0", "--dst", "10.0.2.0/24")[1].startswith("revision 2: 0 added, 0")
    assert run(capsys, "flows", "list", "vr1")[1] == "no delegations\n"


def test_add_everything_that_can_be_typed(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    match = ["--in", "eth0", "--src", "fd00::7", "--dst", "fd00::5", "--proto", "tcp", "--sport", "0", "--dport", "80"]
    drop = ["flows", "add", "vr1", *match, "--eth-src", "02:00:00:00:00:0a", "--action", "drop"]
    assert run_json(capsys, *drop, "--no-wait")["added"] == 1
    (listed,) = run_json(capsys, "flows", "list", "vr1", "--state", "slow_path")["flows"]
    assert listed["match"] == {
        "in": "eth0", "eth_src": "02:00:00:00:00:0a", "ipv6_src": "fd00::7", "ipv6_dst": "fd00::5", "ip_proto": 6,
        "tcp_src": 0, "tcp_dst": 80,
    }  # fmt: skip
    _, out, _ = run(capsys, "flows", "list", "vr1")
    assert "eth0 tcp fd00::7:0 > fd00::5:80 from 02:00:00:00:00:0a" in out
    assert run(capsys, "flows", "remove", "vr1", *match, "--eth-src", "02:00:00:00:00:0a")[0] == 0
    assert len(backend.network.fibs["vr1"]) == 0


def test_what_is_listed_can_be_put_back(
    backend: FakeBackend, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, *ADD)
    _, listed, _ = run(capsys, "flows", "list", "vr1", "--json")
    file = tmp_path / "vr1.json"
    file.write_text(listed)
    assert run_json(capsys, "flows", "put", "vr1", str(file))["unchanged"] == 1
    file.write_text(json.dumps([flow("10.0.4.0/24")]))
    assert run_json(capsys, "flows", "add", "vr1", "--file", str(file))["added"] == 1
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"flows": []}')))
    assert run_json(capsys, "flows", "put", "vr1", "-")["removed"] == 2


def test_remove_all(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, *ADD)
    assert run_json(capsys, "flows", "remove", "vr1", "--all")["removed"] == 1


def test_status(backend: FakeBackend, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run(capsys, "status")
    assert (code, out.splitlines()[0]) == (0, "ready: every bridge is connected and in step")
    assert "br-a    yes        yes         11        0  br-c\n" in out
    assert "vr1     0/200000  none\n" in out
    assert "vr1.eth0   br-a    vif1.0  02:00:00:00:01:01  1500  10.0.1.254/24  up\n" in out
    assert max(map(len, out.splitlines())) <= 80, "E13: MAC addresses were broken over lines"
    backend.reasons = ("bridge br-c is not connected",)
    assert run(capsys, "status")[1].startswith("not ready: bridge br-c is not connected\n")
    assert run_json(capsys, "status")["reasons"] == ["bridge br-c is not connected"]
    monkeypatch.setenv("FSCTL_TOKEN", "vr1-token")
    as_router = run_json(capsys, "status")
    assert (as_router["bridges"], [r["name"] for r in as_router["routers"]]) == (None, ["vr1"])


def test_fault_F8_every_reason_of_an_agent_is_in_status(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    told = ({"name": "twins", "scope": "eth0", "ip": 0, "direction": "both", "reason": "has the MAC address of eth1"},
            {"name": "tc", "scope": "eth1", "ip": 6, "direction": "out", "reason": "qdisc tbf"}, {"name": "x"})  # fmt: skip
    backend.sessions.open(SessionRequest("vr1", "a", 10.0, 0.0, told))
    out = run(capsys, "status")[1].splitlines()
    assert "vr1: not bypassed: eth0 (both): has the MAC address of eth1 [twins]" in out
    assert "vr1: not bypassed: eth1 (out, IPv6): qdisc tbf [tc]" in out
    assert "vr1: not bypassed: router:  [x]" in out


def test_rules_and_walk(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "rules")[1] == "no rules\n"
    run(capsys, *ADD)
    rule, chain = run(capsys, "rules", "--bridge", "br-a")[1].splitlines()
    assert rule.startswith("br-a: table=1,priority=1048,dl_dst=02:00:00:00:01:01,")
    assert chain.endswith("collapsed from vr1 eth0 10.0.2.0/24 -> eth1 02:00:00:00:02:01")
    walk = ["walk", "br-a", "--in-port", "vifA", "--eth-dst", "02:00:00:00:01:01", "--dst", "10.0.2.5"]
    assert run(capsys, *walk)[1].splitlines()[:4] == [
        "br-a port vifA: to 10.0.2.5 at 02:00:00:00:01:01",
        "  1  vr1.eth0: eth0 10.0.2.0/24 -> eth1 02:00:00:00:02:01",
        "bridged: 02:00:00:00:02:01 is no router's on br-c",
        "     on br-c from 02:00:00:00:02:02 to 02:00:00:00:02:01, ttl 63",
    ]
    assert run_json(capsys, *walk, "--ttl", "9")["final"]["ttl"] == 8
    walk[3] = "2"
    assert run_json(capsys, *walk)["end"] == "bridged"


def test_a_refused_write(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *ADD[:-1], "02:00:00:00:01:02")
    assert (code, out) == (1, "")
    assert err == (
        "fsctl: error: add[0].set.eth_dst: expected the next hop's MAC address; this is eth1's own (got '02:00:00:00:01:02')\n"
    )


def test_what_a_switch_refused_is_a_failure(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    failure = Failure(Match("eth0", Prefix.parse("10.0.2.0/24")), "br-a", "OFPFMFC_TABLE_FULL")
    backend.result = WriteResult(1, added=1, failed=(failure,), waiting_for=("br-c",))
    code, out, err = run(capsys, *ADD)
    assert code == 1
    assert "refused by br-a: eth0 10.0.2.0/24: OFPFMFC_TABLE_FULL\n" in out
    assert err == "fsctl: not confirmed yet by: br-c; the rules follow when they answer\n"


def test_hints(backend: FakeBackend, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hint: `fsctl status` lists" in run(capsys, "flows", "list", "nobody")[2]
    monkeypatch.setenv("FSCTL_TOKEN", "vr1-token")
    assert "hint: use the administrator's token" in run(capsys, "rules")[2]
    monkeypatch.setenv("FSCTL_TOKEN", "wrong")
    assert "hint: set FSCTL_TOKEN_FILE" in run(capsys, "rules")[2]
    code, _, err = run(capsys, "--url", "http://127.0.0.1:1", "status")
    assert code == 3
    assert "hint: is fsctl running there?" in err


def test_the_token_of_a_file(
    backend: FakeBackend, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("vr1-token\n")
    assert len(run_json(capsys, "status", "--token-file", str(file))["routers"]) == 1  # wins over FSCTL_TOKEN
    monkeypatch.delenv("FSCTL_TOKEN")
    monkeypatch.setenv("FSCTL_TOKEN_FILE", str(file))
    assert len(run_json(capsys, "status")["routers"]) == 1
    file.write_text("")
    assert run(capsys, "status")[0] == 1
    monkeypatch.setenv("FSCTL_TOKEN_FILE", str(tmp_path / "missing"))
    code, _, err = run(capsys, "status")
    assert (code, "No such file" in err) == (1, True)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["flows", "add", "vr1", "--dst", "10.0.0.0/8"], "--in INTERFACE and --dst"),
        (["flows", "add", "vr1", "--in", "eth0", "--dst", "10.0.0.0/8"], "needs --out"),
        (["flows", "add", "vr1", "--in", "eth0", "--dst", "10.0.0.0/8", "--action", "drop", "--out", "eth1"], "only forward"),
        (["flows", "add", "vr1", "--in", "eth0", "--dst", "10.0.0.1", "--dport", "5", "--action", "drop"], "--proto"),
        (["flows", "add", "vr1", "--file", "x", "--dport", "5"], "not both"),
        (["flows", "remove", "vr1", "--all", "--in", "eth0"], "not both"),
        (["flows", "put", "vr1", "/nonexistent.json"], "No such file"),
        (["flows", "put", "vr1", __file__], "not JSON"),
    ],
)
def test_what_cannot_be_meant(backend: FakeBackend, capsys: pytest.CaptureFixture[str], argv: list[str], words: str) -> None:
    code, out, err = run(capsys, *argv)
    assert (code, out) == (1, "")
    assert words in err
    assert backend.writes == []


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["flows"], ["walk", "br-a"], ["status", "--", "--x"], ["flows", "list"]])
def test_usage_errors_are_2(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: fsctl" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["flows"], ["flows", "add"], ["serve"], ["walk"], ["status"], ["token"], ["demo"]])
def test_help(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*argv, "--help"])
    assert caught.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_token(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "token")
    assert hashlib.sha256(made["token"].encode()).hexdigest() == made["sha256"]
    assert len(made["token"]) >= 40
    assert run_json(capsys, "token") != made
    _, out, _ = run(capsys, "token")
    assert [line.split(":")[0] for line in out.splitlines()] == ["token", "sha256"]


def test_fault_E5_a_token_is_written_where_nobody_pastes_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "token"
    made = run_json(capsys, "token", "--write", str(file))
    assert made.keys() == {"sha256", "file"}
    assert hashlib.sha256(file.read_text().strip().encode()).hexdigest() == made["sha256"]
    assert file.stat().st_mode & 0o777 == 0o600
    code, _, err = run(capsys, "token", "--write", str(file))
    assert (code, file.read_text().count("\n")) == (1, 1)
    assert "--write: the token cannot be written: File exists" in err


def test_serve_becomes_the_controller(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: calls.append((os.environ["FSCTL_CONFIG"], arguments[1:])))
    file = tmp_path / "fsctl.yaml"
    file.write_text(GOOD)
    monkeypatch.delenv("FSCTL_CONFIG", raising=False)
    run(capsys, "serve", "--config", str(file), "--", "--ofp-tcp-listen-port", "6654")
    run(capsys, "serve")
    start = ["-m", "fsctl.start"]
    assert calls == [(str(file), [*start, "--ofp-tcp-listen-port", "6654"]), (str(file), start)]
    file.write_text(GOOD.replace("max_hops: 32", "max_hops: 0"))
    code, _, err = run(capsys, "serve")
    assert (code, len(calls)) == (1, 2)
    assert err.startswith(f"fsctl: error: {file}: max_hops: line 4: expected a whole number from 1 to 254 (got '0')\n")
    monkeypatch.delenv("FSCTL_CONFIG")
    assert "FSCTL_CONFIG" in run(capsys, "serve")[2]
    file.write_text(GOOD)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "pip install 'fsctl[controller]'" in run(capsys, "serve", "--config", str(file))[2]


def test_no_colour_and_no_broken_lines_in_a_pipe(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    backend.refusal = None
    run(capsys, *ADD)
    for command in (["status"], ["flows", "list", "vr1"], ["rules"]):
        _, out, _ = run(capsys, *command)
        assert "\x1b" not in out
    backend.refusal = InvalidError("[red]not markup[/red]", field="x", value=1)
    assert "[red]not markup[/red]" in run(capsys, *ADD)[2]


KEPT = Orphan(
    "vr9",
    1_772_344_800,
    1,
    "the configuration has no such router",
    ({"match": {"in": "eth0", "ipv4_dst": "10.0.2.0/24"}, "action": "punt"},),
)


def test_fault_A3_what_is_kept_aside_is_shown(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    assert "kept aside" not in run(capsys, "status")[1]
    assert run(capsys, "orphans") == (0, "nothing is kept aside\n", "")
    backend.kept = [KEPT, replace(KEPT, count=11)]
    line = next(line for line in run(capsys, "status")[1].splitlines() if line.startswith("kept aside"))
    assert "vr9: 12 delegations" in line
    assert "`fsctl orphans`" in line
    assert run_json(capsys, "status")["orphans"][0]["count"] == 1
    head, flow_line = run(capsys, "orphans")[1].splitlines()[:2]
    assert head == "vr9: 1 delegations since 2026-03-01T06:00:00Z: the configuration has no such router"
    assert flow_line == "    eth0 10.0.2.0/24 -> punt"


def test_fault_A3_what_is_kept_aside_can_be_put_back(
    backend: FakeBackend, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    backend.kept = [replace(KEPT, router="vr1")]
    file = tmp_path / "vr1.json"
    file.write_text(json.dumps(run_json(capsys, "orphans")["orphans"][0]))
    assert run(capsys, "flows", "put", "vr1", str(file))[1].startswith("revision 1: 1 added")


def test_what_is_kept_aside_is_not_a_routers_to_see(
    backend: FakeBackend, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.kept = [KEPT]
    monkeypatch.setenv("FSCTL_TOKEN", "vr1-token")
    assert run(capsys, "orphans")[0] == 1
    assert "kept aside" not in run(capsys, "status")[1]
