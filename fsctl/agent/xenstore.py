"""Reading the guest's own xenstore, where a Xen host provisions the agent: `vm-data/fsctl/{url,router,token}`.

The toolstack writes these keys before the guest runs (contrib/xen/vif-fsctl does); the kernel hands them
out through a character device that speaks xenstored's protocol (Xen, docs/misc/xenstore.txt and
xen/include/public/io/xs_wire.h). Relative paths are below the guest's own /local/domain/<id>.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from fsctl.errors import UnavailableError

DEVICES = (Path("/dev/xen/xenbus"), Path("/proc/xen/xenbus"))
FOLDER = "vm-data/fsctl"
KEYS = ("url", "router", "token")
_HEADER = struct.Struct("=IIII")
_READ, _ERROR = 2, 16
_ABSENT = "ENOENT"
_MAX_PAYLOAD = 4096


def provisioned(devices: Sequence[Path] = DEVICES, keys: Sequence[str] = KEYS) -> dict[str, str]:
    """What the host has provisioned: those of `keys` that are there; empty where there is no Xen.

    Raises UnavailableError if xenstore is there and answers with an error.
    """
    device = next((d for d in devices if d.exists()), None)
    if device is None:
        return {}
    fd = os.open(device, os.O_RDWR)
    try:
        found = {key: _read(fd, f"{FOLDER}/{key}", number) for number, key in enumerate(keys, 1)}
    finally:
        os.close(fd)
    return {key: value for key, value in found.items() if value is not None}


def _read(fd: int, path: str, request: int) -> str | None:
    """The value at a path, None where there is none."""
    payload = path.encode() + b"\0"
    os.write(fd, _HEADER.pack(_READ, request, 0, len(payload)) + payload)
    kind, answered, _, length = _HEADER.unpack(_exactly(fd, _HEADER.size))
    if length > _MAX_PAYLOAD or answered != request:
        raise UnavailableError("xenstore's answer makes no sense", field=path, value=(kind, answered, length))
    body = _exactly(fd, length).rstrip(b"\0").decode("utf-8", "replace")
    if kind != _ERROR:
        return body.strip()
    if body == _ABSENT:
        return None
    raise UnavailableError("xenstore refuses to read this", field=path, value=body)


def _exactly(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = os.read(fd, count - len(data))
        if not chunk:
            raise UnavailableError("xenstore has hung up")
        data += chunk
    return data
