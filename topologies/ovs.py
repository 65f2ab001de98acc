"""The Open vSwitch that a lab uses: the one that runs, or a private one for as long as the lab lasts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from topologies.processes import LabError, die_with_parent, run, spawn, stop
from topologies.sandbox import Sandbox

__all__ = ["LabError", "OpenVSwitch", "die_with_parent", "run", "spawn", "stop"]


class OpenVSwitch:
    """Use the machine's running Open vSwitch, without starting, stopping or configuring it; or start a private one.

    `datapath` is the datapath_type that the lab's bridges get: the kernel's with a running Open vSwitch that has its
    module, else the userspace datapath, which needs none; FSCTL_DATAPATH overrides it.
    """

    def __init__(self) -> None:
        self.is_private = not self._is_running()
        has_module = Path("/sys/module/openvswitch").exists()
        self.datapath = os.environ.get("FSCTL_DATAPATH", "system" if has_module and not self.is_private else "netdev")
        self._sandbox = Sandbox(datapath=self.datapath) if self.is_private else None
        self.rundir = self._sandbox.directory if self._sandbox else Path(os.environ.get("OVS_RUNDIR", "/var/run/openvswitch"))
        self.env = self._sandbox.env if self._sandbox else dict(os.environ)

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
        if self._sandbox is not None:
            try:
                self._sandbox.start()
            except BaseException:
                self._sandbox.stop()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._sandbox is not None:
            self._sandbox.stop()

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
        if self._sandbox is not None:
            return self._sandbox.appctl(*args)
        return run("ovs-appctl", "--timeout=20", "-t", "ovs-vswitchd", *args, env=self.env)
