"""A machine for the commands of a page: what they write stays in it, and they find its network, Open vSwitch and systemd.

Its files are this machine's under an overlay, its network is a namespace. Only systemd is a stand-in: `systemctl` starts
what a unit's ExecStart says, and ends it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.waiting import waited_for
from topologies.processes import stop
from topologies.sandbox import Sandbox

from .pages import ROOT

_SETUP = """
mount -t tmpfs tmpfs {dir} && mkdir {dir}/upper {dir}/work {dir}/root
mount -t overlay overlay -o lowerdir=/,upperdir={dir}/upper,workdir={dir}/work {dir}/root
for place in /proc /dev /sys {others}; do mkdir -p {dir}/root$place; mount --rbind $place {dir}/root$place; done
mkdir -p {dir}/root/run/openvswitch
ip link set lo up
echo ready
exec sleep infinity
"""
_SYSTEMCTL = r"""#!/bin/sh
# Stands in for systemd: `enable --now NAME` starts what the unit says, `disable --now NAME` ends it.
unit=/etc/systemd/system/$3.service
value() { sed -n "s/^$1=//p" "$unit"; }
case "$1" in
    enable)
        for name in $(value StateDirectory); do mkdir -p "/var/lib/$name"; done
        for name in $(value RuntimeDirectory); do mkdir -p "/run/$name"; done
        setsid env $(value Environment) $(value ExecStart) >"/run/$3.log" 2>&1 &
        echo $! >"/run/$3.pid" ;;
    disable)
        kill "$(cat "/run/$3.pid")"
        while kill -0 "$(cat "/run/$3.pid")" 2>/dev/null; do sleep 0.1; done ;;
esac
"""
_KEPT = ("PIP_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT")
"""Environment variables by which pip finds packages here."""


class Machine:
    """Start it, run commands, stop it."""

    def __init__(self, *, has_switch: bool = True) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="fsctl-page-"))
        self._has_switch = has_switch
        self.root = self._directory / "root"
        kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
        self._environment = kept | {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}

    def start(self) -> None:
        # A project on another file system is not under the overlay.
        others = "" if ROOT.stat().st_dev == Path("/").stat().st_dev else ROOT
        setup = _SETUP.format(dir=self._directory, others=others)
        self._init = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-ec", setup], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._init.stdout is not None
        said = self._init.stdout.readline()
        assert said == "ready\n", said
        self.write("/usr/local/sbin/systemctl", _SYSTEMCTL, mode=0o755)
        self.ovs = Sandbox(("nsenter", f"--net=/proc/{self._init.pid}/ns/net"), "dummy")
        if self._has_switch:
            self.ovs.start()
            self._enter("mount", "--bind", str(self.ovs.directory), str(self.root / "run/openvswitch"))

    def stop(self) -> None:
        for number in self._inhabitants():
            subprocess.run(["kill", "-KILL", str(number)], check=False, stderr=subprocess.DEVNULL)
        self.ovs.stop()
        stop(self._init)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _inhabitants(self) -> list[int]:
        """The processes in its network, but for the first and Open vSwitch's."""
        ours = os.stat(f"/proc/{self._init.pid}/ns/net").st_ino
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                is_in = (path / "ns/net").stat().st_ino == ours
                name = (path / "comm").read_text().strip()
            except OSError:
                continue
            if is_in and int(path.name) != self._init.pid and not name.startswith("ovs"):
                found.append(int(path.name))
        return found

    def _enter(self, *words: str) -> subprocess.CompletedProcess[str]:
        namespaces = ["nsenter", f"--target={self._init.pid}", "--mount", "--net"]
        return subprocess.run([*namespaces, *words], check=True, capture_output=True, text=True)

    def _inside(self, command: str, *, online: bool = False) -> list[str]:
        shell = ["chroot", str(self.root), "sh", "-ec", f"cd {ROOT}\n{command}"]
        return ["nsenter", f"--target={self._init.pid}", "--mount", *([] if online else ["--net"]), *shell]

    def run(self, command: str, *, online: bool = False) -> str:
        """What a command, as a page has it, prints. It must succeed. `online`: in this machine's network, for pip."""
        words = self._inside(command, online=online)
        done = subprocess.run(
            words, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def serve(self, command: str, ready: str) -> None:
        """A command that serves: it is ended in order once `ready` succeeds."""
        words, both = self._inside(f"exec env {command}"), {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(words, env=self._environment, text=True, **both)
        is_ready = waited_for(lambda: process.poll() is not None or self.succeeds(ready), 20) and process.poll() is None
        stop(process)
        assert is_ready, f"{command}\n{process.communicate()[0]}"

    def succeeds(self, command: str) -> bool:
        try:
            self.run(command)
        except AssertionError:
            return False
        return True

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file of the machine."""
        there = Path(f"/proc/{self._init.pid}/root{self.root}{path}")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)
        there.chmod(mode)

    def read(self, path: str) -> str:
        return Path(f"/proc/{self._init.pid}/root{self.root}{path}").read_text()
