"""Loads a BPF program that lets everything pass and attaches it to an interface by a BPF link, as libbpf would."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

XDP, TCX_INGRESS, TCX_EGRESS = (6, 2, 37), (3, -1, 46), (3, -1, 47)
"""Program type, its answer (XDP_PASS, TCX_NEXT), attach type."""
_SYS_BPF, _PROG_LOAD, _LINK_CREATE = 321, 5, 28
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    fd: int = _libc.syscall(_SYS_BPF, command, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes))
    if fd < 0:
        pytest.skip(f"bpf(2), command {command}: {os.strerror(ctypes.get_errno())}")
    return fd


@contextmanager
def attached(kind: tuple[int, int, int], index: int) -> Iterator[None]:
    """For as long as the block lasts, in the calling thread's network namespace; skips where the kernel will not."""
    if platform.machine() != "x86_64":
        pytest.skip("the number of bpf(2) is x86_64's")
    program_type, answer, attach_type = kind
    code = struct.pack("=BBhi", 0xB7, 0, 0, answer) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = answer; exit
    text, license_ = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    load = struct.pack("=IIQQIIQII16sII", program_type, 2, ctypes.addressof(text), ctypes.addressof(license_), 0, 0, 0, 0, 0, b"",
                       0, attach_type)  # fmt: skip
    program = _bpf(_PROG_LOAD, load)
    try:
        link = _bpf(_LINK_CREATE, struct.pack("=IIII", program, index, attach_type, 0).ljust(64, b"\0"))
        try:
            yield
        finally:
            os.close(link)
    finally:
        os.close(program)
