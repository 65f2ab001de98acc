"""contrib/xen/vif-fsctl: what a guest's agent needs to know is written to xenstore, and the token is in no command line."""

from __future__ import annotations

import os
import pty
import shutil
import struct
import subprocess
import threading
import time
import tty
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "contrib" / "xen" / "vif-fsctl"
HEADER = struct.Struct("<IIII")
WRITE, ERROR = 11, 16
TOKEN = "s3cret-\\-%s-ü"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


class Xenstore(threading.Thread):
    """xenstored behind its device: a terminal in raw mode, which takes and gives any byte."""

    def __init__(self, refuses: str = "") -> None:
        super().__init__(daemon=True)
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.device = os.ttyname(self._slave)
        self.refuses = refuses
        self.store: dict[str, bytes] = {}
        self.command_lines: set[str] = set()

    def run(self) -> None:
        while True:
            try:
                kind, request, transaction, length = HEADER.unpack(self._exactly(HEADER.size))
                path, _, value = self._exactly(length).partition(b"\0")
            except OSError:
                return
            self.command_lines |= command_lines()
            assert (kind, transaction) == (WRITE, 0)
            answer = b"EACCES\0" if self.refuses and self.refuses in path.decode() else b"OK\0"
            if answer == b"OK\0":
                self.store[path.decode()] = value
            os.write(self._master, HEADER.pack(WRITE if answer == b"OK\0" else ERROR, request, 0, len(answer)) + answer)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += os.read(self._master, count - len(data))
        return data

    def stop(self) -> None:
        os.close(self._slave)
        self.join(5)
        os.close(self._master)


def command_lines() -> set[str]:
    """Of all processes."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """The files of a guest, as docs/xen.md has them."""
    folder = tmp_path / "provisioning" / "vr1"
    folder.mkdir(parents=True)
    (folder / "url").write_text("http://10.99.0.1:8080\n")
    (folder / "router").write_text("vr1\n")
    (folder / "token").write_text(TOKEN + "\n")
    return folder


def run(tmp_path: Path, store: Xenstore) -> subprocess.CompletedProcess[str]:
    """`vif-fsctl online`, with stand-ins for what Xen has."""
    tools = tmp_path / "bin"
    tools.mkdir()
    known = "case $1 in */frontend-id) echo 7;; *) echo vr1;; esac"
    stand_ins = {"xenstore-read": known, "ovs-vsctl": "exit 0", "logger": "exit 1"}
    for name, body in stand_ins.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    (tmp_path / "vif-openvswitch").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "vif-openvswitch").chmod(0o755)
    shutil.copy(SCRIPT, tmp_path / "vif-fsctl")
    env = {
        "PATH": f"{tools}:{os.environ['PATH']}", "XENBUS_PATH": "backend/vif/7/0",
        "FSCTL_XEN_PROVISIONING": str(tmp_path / "provisioning"), "FSCTL_XENBUS": store.device,
    }  # fmt: skip
    return subprocess.run(
        ["bash", str(tmp_path / "vif-fsctl"), "online"], env=env, capture_output=True, text=True, timeout=20, check=False
    )


def test_fault_D26_the_token_reaches_xenstore_and_no_command_line(tmp_path: Path, guest: Path) -> None:
    store = Xenstore()
    store.start()
    seen: set[str] = set()
    watching = threading.Event()

    def watch() -> None:
        while not watching.is_set():
            seen.update(command_lines())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    done = run(tmp_path, store)
    watching.set()
    watcher.join()
    store.stop()
    assert done.returncode == 0, done.stderr
    folder = "/local/domain/7/vm-data/fsctl"
    assert store.store == {
        f"{folder}/url": b"http://10.99.0.1:8080", f"{folder}/router": b"vr1", f"{folder}/token": TOKEN.encode(),
    }  # fmt: skip
    everything = seen | store.command_lines
    assert any("vif-fsctl" in line for line in everything), "nothing was watched"
    assert not any("s3cret" in line for line in everything)


def test_a_refusal_is_logged_without_the_value_and_the_rest_is_written(tmp_path: Path, guest: Path) -> None:
    store = Xenstore(refuses="/router")
    store.start()
    done = run(tmp_path, store)
    store.stop()
    assert "refuses to write /local/domain/7/vm-data/fsctl/router: EACCES" in done.stderr
    assert "s3cret" not in done.stderr
    assert sorted(store.store) == ["/local/domain/7/vm-data/fsctl/token", "/local/domain/7/vm-data/fsctl/url"]
