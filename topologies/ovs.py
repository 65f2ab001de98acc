"""The Open vSwitch that a lab uses: the one that runs, or a private one for as long as the lab lasts."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
START_TIMEOUT_S = 20.0
PR_SET_PDEATHSIG = 1


class LabError(RuntimeError):
    """The lab cannot be brought up or used; says what failed and with which words."""


def run(*command: str, timeout_s: float = 60.0, env: dict[str, str] | None = None, stdin: str | None = None) -> str:
    """Standard output of a command; LabError with its standard error if it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=env, input=stdin)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise LabError(f"{' '.join(command)}: {e}") from e
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def die_with_parent() -> None:
    """For a child, before it executes: end when the lab's process ends, whatever ends it (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def spawn(command: list[str], log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A daemon of the lab's: no terminal, so that Ctrl-C reaches the lab alone, which ends it in order."""
    with open(log, "ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            preexec_fn=die_with_parent, env=env,  # noqa: PLW1509 - the lab spawns from one thread
        )  # fmt: skip


def stop(process: subprocess.Popen[bytes], timeout_s: float = 10.0) -> None:
    """End a daemon: politely, then not."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class OpenVSwitch:
    """Use the machine's running Open vSwitch, without starting, stopping or configuring it; or start a private one.

    The private one has its directory, database and sockets for itself and runs the userspace datapath, which
    needs no kernel module. `datapath` is the datapath_type that the lab's bridges get.
    """

    def __init__(self) -> None:
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._directory: Path | None = None
        self.env = dict(os.environ)
        self.is_private = not self._is_running()
        self.rundir = Path(os.environ.get("OVS_RUNDIR", "/var/run/openvswitch"))
        has_module = Path("/sys/module/openvswitch").exists()
        self.datapath = os.environ.get("FSCTL_DATAPATH", "system" if has_module and not self.is_private else "netdev")

    @staticmethod
    def _is_running() -> bool:
        if shutil.which("ovs-vswitchd") is None:
            raise LabError("Open vSwitch is not installed; `sudo make setup` installs it")
        try:
            run("ovs-appctl", "--timeout=5", "-t", "ovs-vswitchd", "version")
            run("ovs-vsctl", "--timeout=5", "--no-wait", "get", "Open_vSwitch", ".", "_uuid")
        except LabError:
            return False
        return True

    def __enter__(self) -> Self:
        if self.is_private:
            try:
                self._start()
            except BaseException:
                self._stop()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def _start(self) -> None:
        # A short path: the addresses of unix sockets end at 107 bytes.
        directory = self._directory = self.rundir = Path(tempfile.mkdtemp(prefix="fsctl-ovs-", dir="/tmp"))
        self.env |= {f"OVS_{name}DIR": str(directory) for name in ("RUN", "DB", "LOG")}
        database, socket = directory / "conf.db", directory / "db.sock"
        run("ovsdb-tool", "create", str(database), SCHEMA)
        self._spawn("ovsdb-server", str(database), f"--remote=punix:{socket}", f"--unixctl={directory}/ovsdb-server.ctl")
        self._wait_for(socket)
        self.vsctl("--no-wait", "init")
        # --disable-system: it must not look after datapaths in the kernel that may be somebody else's.
        self._spawn("ovs-vswitchd", f"unix:{socket}", "--disable-system", f"--unixctl={directory}/ovs-vswitchd.ctl")
        self._wait_for(directory / "ovs-vswitchd.ctl")

    def _spawn(self, *command: str) -> None:
        log = self.rundir / f"{command[0]}.log"
        self._daemons.append(spawn([*command, "-vconsole:info", "-vsyslog:off", "-vfile:off"], log, self.env))

    def _wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not path.exists():
            if self._daemons[-1].poll() is not None or time.monotonic() > deadline:
                raise LabError(f"{path} did not appear: " + "".join(p.read_text() for p in self.rundir.glob("*.log")))
            time.sleep(0.01)

    def _stop(self) -> None:
        for daemon in reversed(self._daemons):
            stop(daemon)
        self._daemons.clear()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def remote(self) -> str:
        """Its database, as an OVSDB remote."""
        return f"unix:{self.rundir}/db.sock"

    def vsctl(self, *args: str) -> str:
        """ovs-vsctl(8); waits until ovs-vswitchd has done it, at most 20 seconds."""
        return run("ovs-vsctl", f"--db={self.remote}", "--timeout=20", *args, env=self.env)

    def ofctl(self, command: str, bridge: str, *args: str) -> str:
        """ovs-ofctl(8) on a bridge, OpenFlow 1.4."""
        return run("ovs-ofctl", "-O", "OpenFlow14", command, f"unix:{self.rundir}/{bridge}.mgmt", *args, env=self.env)

    def appctl(self, *args: str) -> str:
        """ovs-appctl(8) to ovs-vswitchd."""
        target = str(self.rundir / "ovs-vswitchd.ctl") if self.is_private else "ovs-vswitchd"
        return run("ovs-appctl", "--timeout=20", "-t", target, *args, env=self.env)
