"""Programs that bpf(2) attaches to an interface's tcx hooks (Linux 6.6): no netlink message tells of them.

Asked with CAP_NET_ADMIN. Layout: the `query` part of union bpf_attr, linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

from fsctl.agent.netlink import KernelError

_SYSCALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_QUERY = struct.Struct("=IIIIQIIQQQQ")
_BPF_PROG_QUERY = 16
TCX = {"in": 46, "out": 47}
"""BPF_TCX_INGRESS, BPF_TCX_EGRESS."""
_NO_TCX = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM})
"""An older kernel's answers; EPERM: one that asks for more than CAP_NET_ADMIN, which no kernel with tcx does."""
_libc = ctypes.CDLL(None, use_errno=True)


def tcx_programs(index: int, direction: str) -> int:
    """How many programs are attached to an interface; 0 also where the interface has just gone. Raises KernelError."""
    number = _SYSCALLS.get(platform.machine())
    if number is None or struct.calcsize("P") != 8:
        return 0
    question = _QUERY.pack(index, TCX[direction], 0, 0, 0, 0, 0, 0, 0, 0, 0)
    buffer = ctypes.create_string_buffer(question, len(question))
    if _libc.syscall(number, _BPF_PROG_QUERY, buffer, len(question)) == 0:
        count: int = _QUERY.unpack(buffer.raw)[5]
        return count
    found = ctypes.get_errno()
    if found in _NO_TCX or found in (errno.ENODEV, errno.ENOENT):
        return 0
    raise KernelError("cannot ask for tcx programs", found)
