"""A private Open vSwitch: with the dummy datapath for tests and benchmarks (no packets, no root), or with the
userspace datapath for real packets.

Own directory, own sockets, gone at the end. Nothing here touches an OVS that already runs on the machine. The
daemons stay children of this process and end when it does, whatever happens to their directory.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from topologies.processes import LabError, run, spawn, stop

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
START_TIMEOUT_S = 20.0
DATABASE, SWITCH = 0, 1
"""The daemons of a sandbox, ovsdb-server and ovs-vswitchd, in the order of their start."""


def available() -> bool:
    """Whether Open vSwitch's daemons are installed."""
    return SCHEMA.exists() and all(map(shutil.which, ("ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl")))


class Ofctl(Protocol):
    """Whatever ovs-ofctl can be run on."""

    def ofctl(self, command: str, bridge: str, *args: str) -> str: ...


def flow_count(ovs: Ofctl, bridge: str, *match: str) -> int:
    """The flow entries of a bridge that `match` covers."""
    answer = ovs.ofctl("dump-aggregate", bridge, *match)
    found = re.search(r"flow_count=(\d+)", answer)
    if found is None:
        raise LabError(f"no flow_count in: {answer}")
    return int(found[1])


class Sandbox:
    """ovsdb-server and ovs-vswitchd of one session.

    `inside` is a command prefix that enters a network namespace: there the datapath is real (needs root).
    `datapath` is "dummy" or "netdev"; by default "netdev" inside a namespace.
    """

    def __init__(self, inside: Sequence[str] = (), datapath: str | None = None) -> None:
        self._inside = tuple(inside)
        self.datapath = datapath or ("netdev" if self._inside else "dummy")
        # A short path: unix socket addresses end at 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="fsctl-ovs-", dir="/tmp"))
        self.env = dict(os.environ, **{f"OVS_{name}DIR": str(self.directory) for name in ("RUN", "DB", "LOG", "SYSCONF")})
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._commands: list[tuple[str, ...]] = []

    def start(self) -> None:
        """Raises LabError with the daemons' words if they do not come up."""
        database, self.db_socket = self.directory / "conf.db", self.directory / "db.sock"
        self.run("ovsdb-tool", "create", str(database), str(SCHEMA))
        self._spawn("ovsdb-server", str(database), f"--remote=punix:{self.db_socket}", "--unixctl=" + self._ctl("db"))
        self._wait_for(self.db_socket)
        # The socket is there before the server listens at it: hence --retry.
        self.run("ovs-vsctl", f"--db={self.remote}", "--retry", "--timeout=20", "--no-wait", "init")
        dummy = ("--enable-dummy=override",) if self.datapath == "dummy" else ()
        # --disable-system: it must not look after datapaths in the kernel that may be somebody else's.
        self._spawn(
            *self._inside, "ovs-vswitchd", f"unix:{self.db_socket}", *dummy, "--disable-system", "-vconsole:off",
            "-vfile:info", f"--log-file={self.directory}/vswitchd.log", "--unixctl=" + self._ctl("sw"),
        )  # fmt: skip
        self._wait_for(Path(self._ctl("sw")))

    def stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGCONT)  # a paused one would not hear of its end
            stop(daemon)
        self._daemons.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def remote(self) -> str:
        """Its database, as an OVSDB remote."""
        return f"unix:{self.db_socket}"

    # --- daemons, one by one --------------------------------------------------------------------------------

    def is_running(self, which: int) -> bool:
        return self._daemons[which].poll() is None

    def pid(self, which: int) -> int:
        return self._daemons[which].pid

    def pause(self, which: int) -> None:
        """SIGSTOP: connections to it are accepted (the kernel does that), and nothing is answered."""
        self._daemons[which].send_signal(signal.SIGSTOP)

    def resume(self, which: int) -> None:
        self._daemons[which].send_signal(signal.SIGCONT)

    @contextmanager
    def paused(self, which: int) -> Iterator[None]:
        self.pause(which)
        try:
            yield
        finally:
            self.resume(which)

    def kill(self, which: int) -> None:
        """SIGKILL; it can be started again."""
        self._daemons[which].kill()
        self._daemons[which].wait()

    def launch(self, which: int) -> None:
        """Start a daemon that has ended, with the command of its first start; does not wait until it answers."""
        self._daemons[which] = spawn(list(self._commands[which]), self._output(which), self.env)

    def start_again(self, which: int) -> None:
        """`launch`, and wait until it answers; raises LabError if it does not."""
        self.launch(which)
        asked = ("ovs-appctl", "--timeout=2", "-t", self._ctl("sw" if which == SWITCH else "db"), "version")
        ends = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.run(*asked)
                return
            except LabError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.05)

    def _output(self, which: int) -> Path:
        return self.directory / f"daemon{which}.out"

    def _ctl(self, name: str) -> str:
        return str(self.directory / f"{name}.ctl")

    def _spawn(self, *command: str) -> None:
        self._commands.append(command)
        self._daemons.append(spawn(list(command), self._output(len(self._daemons)), self.env))

    def _wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not path.exists():
            if self._daemons[-1].poll() is not None or time.monotonic() > deadline:
                outputs = "".join(p.read_text(errors="replace") for p in self.directory.glob("*.out"))
                raise LabError(f"{path} did not appear: {outputs}")
            time.sleep(0.01)

    def run(self, *command: str) -> str:
        """Standard output; raises LabError with standard error if the command fails."""
        return run(*command, env=self.env)

    def vsctl(self, *args: str) -> str:
        return self.run("ovs-vsctl", f"--db=unix:{self.db_socket}", *args)

    def ofctl(self, command: str, bridge: str, *args: str) -> str:
        return self.run("ovs-ofctl", "-O", "OpenFlow14", command, f"unix:{self.management(bridge)}", *args)

    def appctl(self, *args: str) -> str:
        return self.run("ovs-appctl", "-t", self._ctl("sw"), *args)

    def management(self, bridge: str) -> Path:
        """The unix socket where ovs-vswitchd takes OpenFlow connections for a bridge."""
        return self.directory / f"{bridge}.mgmt"

    def add_bridge(self, bridge: str, ports: int = 0) -> None:
        """A bridge in fail mode secure with dummy ports `BRIDGE-p1`... that have OpenFlow numbers 1..."""
        args = ["--may-exist", "add-br", bridge, "--", "set", "bridge", bridge, f"datapath_type={self.datapath}",
                "fail_mode=secure", "protocols=OpenFlow10,OpenFlow13,OpenFlow14"]  # fmt: skip
        for n in range(1, ports + 1):
            args += ["--", "add-port", bridge, f"{bridge}-p{n}", "--", "set", "interface", f"{bridge}-p{n}", "type=dummy",
                     f"ofport_request={n}"]  # fmt: skip
        self.vsctl(*args)

    def add_patch(self, one: str, other: str, ofport: int) -> None:
        """A pair of patch ports `ONE-OTHER`, `OTHER-ONE` as fsctl makes them: tag=4095, the same number on both."""
        args: list[str] = []
        for here, there in ((one, other), (other, one)):
            name, peer = f"{here}-{there}", f"{there}-{here}"
            args += ["--", "add-port", here, name, "tag=4095", "--", "set", "interface", name, "type=patch",
                     f"options:peer={peer}", f"ofport_request={ofport}"]  # fmt: skip
        self.vsctl(*args[1:])

    def del_bridge(self, bridge: str) -> None:
        self.vsctl("--if-exists", "del-br", bridge)
