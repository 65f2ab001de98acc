"""A process that hangs ends, and one that was merely stopped does not (D24)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsctl.watchdog import EXIT_CODE, notify

HANGS = """
import eventlet; eventlet.monkey_patch()
from fsctl.watchdog import Watchdog
dog = Watchdog(hangs_s=2); dog.start()
for _ in range({beats}):
    dog.beat(); eventlet.sleep(0.2)
print("hanging", flush=True)
while True: pass
"""


def test_d24_a_process_that_hangs_ends_with_its_stacks() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS.format(beats=2)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == EXIT_CODE
    assert "fsctl hangs" in done.stderr
    assert 'File "<string>"' in done.stderr


def test_d24_a_process_that_is_stopped_for_a_while_goes_on() -> None:
    with subprocess.Popen([sys.executable, "-c", HANGS.format(beats=40)], stdout=subprocess.PIPE) as process:
        try:
            time.sleep(1.0)
            process.send_signal(signal.SIGSTOP)
            time.sleep(4.0)
            process.send_signal(signal.SIGCONT)
            assert process.stdout is not None
            assert process.stdout.readline() == b"hanging\n"
        finally:
            process.kill()


def test_d24_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setitem(os.environ, "NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"
