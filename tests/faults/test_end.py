"""SIGTERM, as systemd sends it: an end in order."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from .host import Host
from .test_hostile_router import flow, of


def test_sigterm_closes_the_store_and_removes_the_socket(host: Host, tmp_path: Path) -> None:
    host.control.stop()
    host.control.config["rest"]["socket"] = str(tmp_path / "rest.sock")
    host.control.start()
    assert (tmp_path / "rest.sock").exists()
    of(host, "r1").put_flows("r1", [flow("10.77.0.0/24", "r2.eth0")])
    process = host.control._process
    assert process is not None
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - begun < 6.0
    assert "asked to end (SIGTERM)" in host.control.log.read_text()
    left = {path.name for path in tmp_path.iterdir()}
    assert not [name for name in left if name.endswith(("-wal", ".sock"))], left
    assert host.rules("b0").count("table=1") > 1, "the bridges keep their rules"
    host.control.stop()  # it has ended already
    host.control.start()
    assert len(of(host, "r1").flows("r1")) == 1
