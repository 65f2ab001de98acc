"""The parts of the `peers` experiment that need no root and no Open vSwitch."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest
import yaml

from topologies.experiments import peers
from topologies.experiments.peer import chain, environment
from topologies.experiments.peer.contender import Installed, RefusedError, share_of_processor, waited
from topologies.experiments.peer.environment import FAUCET, REST_ROUTER, Peer
from topologies.experiments.peer.faucet import GLOBAL_VLAN, configuration
from topologies.experiments.peer.rest_router import Rest
from topologies.experiments.peer.traffic import Loss, loss, unwrapped
from topologies.experiments.report import Report, SkippedError
from topologies.experiments.rig import FIRST_PREFIX, prefix
from topologies.processes import LabError

# Environments


def test_an_environment_is_another_one_when_what_it_is_made_from_changes() -> None:
    keys = {environment.key(p) for p in (REST_ROUTER, FAUCET, Peer("x", ("ryu==4.33",)), Peer("x", ("ryu==4.33",), shim=True))}
    assert len(keys) == 4
    assert environment.key(FAUCET) == environment.key(FAUCET)


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSCTL_LAB_CACHE", str(tmp_path))
    commands: list[tuple[str, ...]] = []

    def run(*command: str, **_: Any) -> str:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir()
        return ""

    monkeypatch.setattr(environment, "run", run)
    first = environment.python_of(REST_ROUTER)
    made = len(commands)
    assert environment.python_of(REST_ROUTER) == first
    assert first.is_relative_to(tmp_path)
    assert len(commands) == made == 3  # venv, pip, fsctl.compat


def test_what_cannot_be_installed_is_left_out_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSCTL_LAB_CACHE", str(tmp_path))

    def run(*command: str, **_: Any) -> str:
        raise LabError("pip: something\nNo matching distribution found")

    monkeypatch.setattr(environment, "run", run)
    with pytest.raises(SkippedError, match=r"faucet==.* No matching distribution found"):
        environment.python_of(FAUCET)
    assert not [path for path in tmp_path.iterdir() if path.name != ".locks"]


def test_a_peer_sees_nothing_of_our_python(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "FSCTL_CONFIG"):
        monkeypatch.setenv(name, "ours")
    assert "ours" not in environment.environ(FAUCET).values()
    assert Path(environment.environ(REST_ROUTER)["PYTHONPATH"], "fsctl", "compat.py").exists()


# The chain


@pytest.mark.parametrize("routers", [1, 2, 4])
def test_every_gateway_is_a_neighbour(routers: int) -> None:
    for router in range(1, routers + 1):
        behind = ip_interface(f"{chain.address(router, chain.BEHIND)}/24")
        for gateway in {chain.gateway(router, routers), *([chain.other_gateway(routers)] if router == routers else [])}:
            assert ip_address(gateway) in behind.network
            assert ip_address(gateway) != behind.ip
    for router in range(1, routers):
        assert chain.gateway(router, routers) == chain.address(router + 1, chain.BEFORE)


def test_faucets_configuration() -> None:
    routes = [(prefix(n), "10.0.4.10") for n in range(3)]
    found = yaml.safe_load(configuration(4, "p4", routes, {1: 1, 2: 2, 3: 2}))
    before, behind = found["vlans"]["v1"], found["vlans"]["v2"]
    assert "routes" not in before
    assert [route["route"]["ip_dst"] for route in behind["routes"]] == [destination for destination, _ in routes]
    assert ip_address("10.0.4.10") in ip_interface(behind["faucet_vips"][0]).network
    assert before["faucet_mac"] != behind["faucet_mac"]
    assert GLOBAL_VLAN not in {before["vid"], behind["vid"]}
    assert {port: side["native_vlan"] for port, side in found["dps"]["p4"]["interfaces"].items()} == {1: "v1", 2: "v2", 3: "v2"}
    assert found["routers"]["r4"]["vlans"] == ["v1", "v2"]


# REST of rest_router


@contextmanager
def _answering(answers: list[tuple[int, Any]]) -> Iterator[tuple[Rest, list[tuple[str, str, Any]]]]:
    asked: list[tuple[str, str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.command, self.path, json.loads(body) if body else None))
            status, answer = answers.pop(0)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - http.server's names

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        rest = Rest(server.server_port, 3)
        try:
            yield rest, asked
        finally:
            rest.close()
            server.shutdown()
            thread.join()


def _result(result: str, details: str) -> tuple[int, Any]:
    return 200, [{"switch_id": "0000000000000003", "command_result": [{"result": result, "details": details}]}]


def test_a_route_is_added_and_deleted_by_its_number() -> None:
    answers = [_result("success", "Add route [route_id=7]"), _result("success", "Delete route [route_id=7]")]
    with _answering(answers) as (rest, asked):
        rest.delete(rest.add("16.0.0.0/24", "10.0.4.10"))
    path = "/router/0000000000000003"
    assert asked == [
        ("POST", path, {"destination": "16.0.0.0/24", "gateway": "10.0.4.10"}),
        ("DELETE", path, {"route_id": 7}),
    ]


def test_a_refusal_is_no_breakdown() -> None:
    with _answering([_result("failure", "Data is nothing.")]) as (rest, _), pytest.raises(RefusedError, match="Data is nothing"):
        rest.delete(7)
    with _answering([(404, {"result": "failure"})]) as (rest, _), pytest.raises(LabError, match="404") as e:
        rest.add("16.0.0.0/24", "10.0.4.10")
    assert not isinstance(e.value, RefusedError)


def test_routes_are_counted_over_all_of_a_routers_networks() -> None:
    networks = [{"address": []}, {"route": [{"route_id": 1}, {"route_id": 2}]}]
    with _answering([(200, [{"internal_network": networks}]), (200, [{"internal_network": [{}]}])]) as (rest, _):
        assert (rest.routes(), rest.routes()) == (2, 0)


# Packets that are lost


def test_loss() -> None:
    assert loss(0, set()) == Loss(0, 0, 0.0)
    assert loss(5, {0, 1, 2, 3, 4}, 0.1) == Loss(5, 0, 0.0)
    assert loss(8, {0, 2, 5, 6}, 0.5) == Loss(8, 4, 1.0)


def test_more_packets_than_an_ip_identification_has_numbers() -> None:
    last = 0
    for number in [0, 2, 1, *range(3, 200_000, 999), 190_000]:
        last = unwrapped(number & 0xFFFF, last)
        assert last == number


# Contenders


def test_waiting() -> None:
    calls = iter([False, False, True])
    assert waited(lambda: next(calls), 5.0, 0.0) is not None
    assert waited(lambda: False, 0.0, 0.0) is None


def test_a_process_that_sleeps_uses_no_processor() -> None:
    assert 0 <= share_of_processor([os.getppid()], 0.01) <= (os.cpu_count() or 1) * 2


@pytest.mark.parametrize("size", [50, 200, 1_000, 10_000])
@pytest.mark.parametrize("count", [peers.BURST, peers.STREAMED])
def test_packets_go_where_nothing_is_changed(size: int, count: int) -> None:
    numbers = [(address - FIRST_PREFIX) >> 8 for address in peers.destinations(size, count)]
    assert len(set(numbers)) == len(numbers) > 0
    most_changed = max(kind.changes for kind in peers.CONTENDERS)
    assert most_changed <= min(numbers) <= max(numbers) < size


def test_what_did_not_finish_is_told_as_such() -> None:
    report = Report("peers", "")
    sample = peers.Sample("slow", 1_000, Installed(120.0, 3_999, 4_000), 4, 1024)
    peers._figures(report, sample, 120.0)
    (figure,) = report.figures
    assert (figure.value, figure.unit) == (3_999, "rules")
    assert figure.note == "of 4,000; not within 120 s"


def test_ratios_are_of_the_largest_size_that_a_peer_has_managed() -> None:
    report = Report("peers", "")
    made = [("fsctl", 10, 1.0, 40), ("slow", 10, 5.0, 40), ("fsctl", 20, 2.0, 80), ("slow", 20, 60.0, 79)]
    samples = [peers.Sample(name, routes, Installed(took, rules, 4 * routes), 1, 0) for name, routes, took, rules in made]
    peers._ratios(report, samples)
    (figure,) = report.figures
    assert figure.value == pytest.approx(5.0)
    assert "4 x 10 " in figure.what


def test_without_any_peer_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    def python_of(peer: Peer) -> Path:
        raise SkippedError(f"{peer.name} cannot be installed")

    monkeypatch.setattr(peers, "python_of", python_of)
    with pytest.raises(SkippedError, match=r"peer-ryu cannot.*peer-faucet cannot"):
        peers._installable(Report("peers", ""), lambda _: None)
