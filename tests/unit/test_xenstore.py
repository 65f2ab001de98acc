"""The agent's view of xenstore, against a device that speaks xs_wire's protocol (a pty in raw mode)."""

from __future__ import annotations

import os
import pty
import struct
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsctl.agent.xenstore import provisioned
from fsctl.errors import UnavailableError

HEADER = struct.Struct("=IIII")
READ, ERROR = 2, 16


@contextmanager
def xenstored(values: dict[str, bytes], error: bytes = b"ENOENT") -> Iterator[Path]:
    """A device whose xenstored knows `values` and answers `error` to everything else."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)

    def serve() -> None:
        while True:
            try:
                kind, request, transaction, length = HEADER.unpack(os.read(ours, HEADER.size))
                path = os.read(ours, length)
            except (OSError, struct.error):
                return
            assert kind == READ
            assert transaction == 0
            value = values.get(path.rstrip(b"\0").decode())
            reply = (ERROR, error + b"\0") if value is None else (READ, value)
            os.write(ours, HEADER.pack(reply[0], request, 0, len(reply[1])) + reply[1])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Path(os.ttyname(theirs))
    finally:
        os.close(theirs)
        os.close(ours)
        thread.join(5)


def test_reads_what_the_host_provisioned() -> None:
    values = {
        "vm-data/fsctl/url": b"http://10.99.0.1:8080",
        "vm-data/fsctl/router": b"vr1",
        "vm-data/fsctl/token": b"s3cret\n",
    }
    with xenstored(values) as device:
        assert provisioned([device]) == {"url": "http://10.99.0.1:8080", "router": "vr1", "token": "s3cret"}


def test_leaves_out_what_is_not_there() -> None:
    with xenstored({"vm-data/fsctl/router": b"vr1"}) as device:
        assert provisioned([device]) == {"router": "vr1"}


def test_no_xen_means_nothing_provisioned(tmp_path: Path) -> None:
    assert provisioned([tmp_path / "xenbus"]) == {}


def test_a_refusal_names_the_key() -> None:
    with xenstored({}, error=b"EACCES") as device, pytest.raises(UnavailableError, match="vm-data/fsctl/url"):
        provisioned([device])
