"""Listening unix sockets that only their owner can use."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import eventlet

from fsctl.errors import FsctlError


def listen_unix(path: Path, what: str) -> Any:
    """A listening unix socket that only its owner can use; raises FsctlError."""
    try:
        _remove_left_over(path)
        before = os.umask(0o177)
        try:
            return eventlet.listen(str(path), family=socket.AF_UNIX)
        finally:
            os.umask(before)
    except OSError as e:
        raise FsctlError(f"{what} cannot listen on {path}: {e.strerror}") from e


def _remove_left_over(path: Path) -> None:
    """Delete the socket of a process that is gone; raises OSError if one listens there."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(errno.EEXIST, "there is a file that is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise OSError(errno.EADDRINUSE, "another process listens there")
