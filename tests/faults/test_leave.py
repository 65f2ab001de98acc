"""E3: fsctl leaves, and nothing of it stays."""

from __future__ import annotations

import subprocess
import sys

from .host import BRIDGES, Host


def leave(host: Host) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsctl.cli", "leave", "--config", str(host.control.directory / "fsctl.yaml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_fault_E3_leave_makes_plain_switches_and_leaves_nothing(host: Host) -> None:
    host.chain()
    running = leave(host)
    assert running.returncode == 1
    assert "fsctl still runs" in running.stderr
    assert host.is_bypassed()
    host.control.stop()
    done = leave(host)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{bridge}: a plain switch again" for bridge in BRIDGES]
    for bridge in BRIDGES:
        assert host.ovs.vsctl("get-controller", bridge).strip() == ""
        assert host.ovs.vsctl("get-fail-mode", bridge).strip() == ""
        assert host.ovs.vsctl("get", "bridge", bridge, "flow_tables").strip() == "{}"
        rules = [line for line in host.ovs.ofctl("dump-flows", bridge, "--no-stats").splitlines() if "actions" in line]
        assert [rule.strip() for rule in rules] == ["priority=0 actions=NORMAL"]
    assert host.ovs.vsctl("--bare", "--columns=name", "find", "interface", "type=patch").strip() == ""
    again = leave(host)
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to do" in again.stderr


def test_another_controllers_bridge_keeps_its_fail_mode(host: Host) -> None:
    new = ("--id=@c", "create", "controller", 'target="tcp:127.0.0.1:9"')
    host.ovs.vsctl("--", *new, "--", "add", "bridge", "b1", "controller", "@c")
    host.control.stop()
    done = leave(host)
    assert "b1: another controller remains there" in done.stdout
    assert host.ovs.vsctl("get-controller", "b1").split() == ["tcp:127.0.0.1:9"]
    assert host.ovs.vsctl("get-fail-mode", "b1").strip() == "secure"
