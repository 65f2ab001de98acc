#!/usr/bin/python3
"""The lab's hands where the bridges are: in a Xen dom0, or in the network namespace of the VM lab.

Reads one JSON request per line and answers each with one JSON line. Needs nothing but Python, since it
also runs inside dom0; it waits in blocking reads only, because polling would disturb a measurement that
shares its processor.

    {"shell": "ovs-vsctl show", "timeout": 30}               -> {"rc": 0, "out": "..."}
    {"guest": "10.99.0.11", "shell": "ip route"}             -> {"rc": 0, "out": "..."}
    {"path": "/etc/fsctl/fsctl.yaml", "text": "...", "mode": 384} -> {"rc": 0, "out": ""}
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any, BinaryIO

GUEST_PORT = 2323
_END = "lab-end-of-output"


def shell(command: str, timeout: float) -> dict[str, Any]:
    """Run a command of bash with its error output among its output; rc 124 if it took too long."""
    try:
        done = subprocess.run(
            ["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=timeout, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as e:
        return {"rc": 124, "out": (e.stdout or b"").decode("utf-8", "replace")}
    return {"rc": done.returncode, "out": done.stdout.decode("utf-8", "replace")}


def in_guest(address: str, command: str, timeout: float) -> dict[str, Any]:
    """Run a command in a guest, through the shell that its init serves."""
    script = f"{{ {command}\n}} </dev/null 2>&1\necho; echo {_END} $?\nexit\n"
    data = b""
    try:
        with socket.create_connection((address, GUEST_PORT), timeout) as connection:
            connection.sendall(script.encode())
            while chunk := connection.recv(65536):
                data += chunk
                if data.rfind(_END.encode()) >= 0 and data.endswith(b"\n"):
                    break
    except OSError as e:
        return {"rc": 255, "out": f"guest {address}: {e}\n" + data.decode("utf-8", "replace")}
    out, found, code = data.decode("utf-8", "replace").rpartition(f"\n{_END} ")
    return {"rc": int(code), "out": out} if found else {"rc": 255, "out": f"guest {address}: cut off\n{code}"}


def write(path: str, text: str, mode: int) -> dict[str, Any]:
    """Write a file, its folders made as needed."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)
    return {"rc": 0, "out": ""}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    timeout = float(request.get("timeout", 60))
    if "path" in request:
        return write(request["path"], request["text"], request.get("mode", 0o644))
    if "guest" in request:
        return in_guest(request["guest"], request["shell"], timeout)
    return shell(request["shell"], timeout)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Until the requests end."""
    for line in requests:
        if not line.strip():
            continue
        try:
            reply = answer(json.loads(line))
        except (ValueError, KeyError, OSError) as e:
            reply = {"rc": 255, "out": f"station: {e!r}"}
        answers.write(json.dumps(reply).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        with open(sys.argv[1], "rb") as reader, open(sys.argv[1], "wb") as writer:
            print("LAB-DOM0-READY", flush=True)  # on the console; what came over the line before is lost
            serve(reader, writer)
    else:
        serve(sys.stdin.buffer, sys.stdout.buffer)
