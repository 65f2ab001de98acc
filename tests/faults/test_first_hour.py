"""What an operator meets in the first hour (section E): both ways to start the controller behave alike."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.waiting import waited_for
from topologies.control import ROOT, free_port

BIN = Path(sys.executable).parent
STARTS = {"fsctl serve": [str(BIN / "fsctl"), "serve"], "ryu-manager": [str(BIN / "ryu-manager"), "fsctl.app"]}


class Started:
    """A controller with no Open vSwitch: what it says, and how it ends."""

    def __init__(self, how: str, directory: Path, openflow_port: int) -> None:
        self.rest_port = free_port("127.0.0.1")
        config = {
            "rest": {"host": "127.0.0.1", "port": self.rest_port}, "store": str(directory / "fsctl.db"),
            "ovsdb": f"unix:{directory}/absent.sock", "openflow": {"controller": f"tcp:127.0.0.1:{openflow_port}"},
            "admin_token_sha256": "0" * 64, "bridges": ["br-a"], "routers": {},
        }  # fmt: skip
        path = directory / "fsctl.yaml"
        path.write_text(yaml.safe_dump(config))
        self.log = directory / "log"
        env = os.environ | {"FSCTL_CONFIG": str(path), "PYTHONPATH": str(ROOT)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(STARTS[how], stdout=log, stderr=subprocess.STDOUT, env=env)

    def says(self, what: str, within_s: float = 15.0) -> bool:
        return bool(waited_for(lambda: re.search(what, self.log.read_text()), within_s))

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)


@contextmanager
def started(how: str, directory: Path, openflow_port: int) -> Iterator[Started]:
    controller = Started(how, directory, openflow_port)
    try:
        yield controller
    finally:
        controller.stop()


def listening() -> set[tuple[str, int]]:
    """(address in hexadecimal digits, port) of all TCP sockets that listen (proc(5))."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    pairs = [line[1].split(":") for line in lines if line[3] == "0A"]
    return {(address, int(port, 16)) for address, port in pairs}


@pytest.mark.parametrize("how", STARTS)
def test_fault_E2_switches_are_listened_for_on_loopback(how: str, tmp_path: Path) -> None:
    """Ryu's own default is every address of the host, for whoever is on the management network."""
    before, port = listening(), free_port("127.0.0.1")
    with started(how, tmp_path, port) as controller:
        assert controller.says("REST on"), controller.log.read_text()
        new = listening() - before
    assert new == {("0100007F", port), ("0100007F", controller.rest_port)}


@pytest.mark.parametrize("how", STARTS)
def test_fault_E6_a_port_that_is_taken_is_an_error_and_an_exit_code(how: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, started(how, tmp_path, taken.getsockname()[1]) as controller:
        assert controller.process.wait(20) == 1
        text = controller.log.read_text()
    assert re.search(r"fsctl: .*127\.0\.0\.1.*(Address already in use)", text), text
    assert "Traceback" not in text


@pytest.mark.parametrize("how", STARTS)
def test_fault_E7_an_absent_database_is_told(how: str, tmp_path: Path) -> None:
    with started(how, tmp_path, free_port("127.0.0.1")) as controller:
        assert controller.says(r"absent\.sock"), controller.log.read_text()


@pytest.mark.parametrize("how", STARTS)
def test_fault_E11_sighup_ends_nothing(how: str, tmp_path: Path) -> None:
    with started(how, tmp_path, free_port("127.0.0.1")) as controller:
        assert controller.says("REST on")
        controller.process.send_signal(signal.SIGHUP)
        assert controller.says("SIGHUP: .* restart fsctl")
        time.sleep(0.5)
        assert controller.process.poll() is None


@pytest.mark.parametrize("how", STARTS)
def test_fault_E12_the_log_has_time_and_level_and_no_noise(how: str, tmp_path: Path) -> None:
    """What ryu-manager says before it has loaded fsctl is Ryu's own."""
    with started(how, tmp_path, free_port("127.0.0.1")) as controller:
        assert controller.says("REST on")
        text = controller.log.read_text()
    text = text if how == "fsctl serve" else text.partition("instantiating app fsctl.app of FsctlApp\n")[2]
    assert not [word for word in ("Deprecat", "not greened", "Traceback") if word in text], text
    lines = [line for line in text.splitlines() if line]
    assert lines
    assert [line for line in lines if not re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ", line)] == []
