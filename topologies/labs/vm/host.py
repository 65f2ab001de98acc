"""The VM lab's host side: a network namespace with an Open vSwitch of its own.

Nothing here touches the machine's own Open vSwitch or its network: own daemons, own run folder, own
namespace, bridges of the userspace datapath. `close` takes all of it away again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from topologies.labs import cache
from topologies.labs.debian import run
from topologies.labs.plan import MGMT_BRIDGE, MGMT_HOST, Nic, Plan
from topologies.labs.remote import WITH_PARENT, LabError, PipeChannel, Station

MGMT_MAC = "00:16:3e:fe:00:01"
"""The host's address on br-mgmt, the same in every lab: resumed guests have it in their neighbour tables."""
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


class Host:
    """The namespace, its bridges and whatever was started in it."""

    def __init__(self) -> None:
        self.namespace = f"fsctl-vm-{os.getpid()}"
        self.folder = Path(tempfile.mkdtemp(prefix="fsctl-vm-"))
        self.environment = {
            **os.environ,
            "OVS_RUNDIR": str(self.folder), "OVS_DBDIR": str(self.folder), "OVS_LOGDIR": str(self.folder),
            "OVS_SYSCONFDIR": str(self.folder), "PYTHONPATH": str(cache.TREE),
        }  # fmt: skip
        self._processes: list[subprocess.Popen[bytes]] = []
        self._channel: PipeChannel | None = None
        self.station: Station

    @property
    def db(self) -> str:
        """The OVSDB server's address."""
        return f"unix:{self.folder}/db.sock"

    def open(self, plan: Plan) -> None:
        """Namespace, Open vSwitch, bridges and a station among them."""
        run("ip", "netns", "add", self.namespace)
        self.inside("ip", "link", "set", "lo", "up")
        self._start_ovs()
        self._vsctl(
            *(word for name in (*plan.bridges, MGMT_BRIDGE)
              for word in ("--", "add-br", name, "--", "set", "bridge", name, "datapath_type=netdev")),
            f'other-config:hwaddr="{MGMT_MAC}"',
        )  # fmt: skip
        self.inside("ip", "addr", "add", f"{MGMT_HOST}/24", "dev", MGMT_BRIDGE)
        self.inside("ip", "link", "set", MGMT_BRIDGE, "up")
        self._channel = PipeChannel(
            ["ip", "netns", "exec", self.namespace, "env", *self._ovs_settings(), sys.executable,
             str(cache.TREE / "topologies/labs/station.py")]
        )  # fmt: skip
        self.station = Station(self._channel)

    def _ovs_settings(self) -> list[str]:
        return [f"{k}={v}" for k, v in self.environment.items() if k.startswith("OVS_") or k == "PYTHONPATH"]

    def _start_ovs(self) -> None:
        run("ovsdb-tool", "create", self.folder / "conf.db", SCHEMA)
        self.spawn("ovsdb-server", ["ovsdb-server", str(self.folder / "conf.db"), f"--remote=p{self.db}",
                                    f"--unixctl={self.folder}/ovsdb.ctl"])  # fmt: skip
        self._wait_for(self.folder / "db.sock")
        self._vsctl("--no-wait", "init")
        self.spawn("ovs-vswitchd", ["ovs-vswitchd", self.db, f"--unixctl={self.folder}/vswitchd.ctl"])

    @staticmethod
    def _wait_for(path: Path) -> None:
        end = time.monotonic() + 10
        while not path.exists():
            if time.monotonic() > end:
                raise LabError(f"{path} did not appear")
            time.sleep(0.02)

    def _vsctl(self, *words: str) -> None:
        run("ovs-vsctl", f"--db={self.db}", "--timeout=20", *words)

    def inside(self, *argv: str) -> str:
        """A command's output, run in the namespace."""
        return run("ip", "netns", "exec", self.namespace, *argv, env=self.environment)

    def spawn(self, name: str, argv: list[str]) -> subprocess.Popen[bytes]:
        """Start something in the namespace that `close` shall end; its words go to <folder>/<name>.log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*WITH_PARENT, "ip", "netns", "exec", self.namespace, *argv], env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def shell(self, extra: dict[str, str]) -> int:
        """bash in the namespace, until it is left; its exit status."""
        argv = ["ip", "netns", "exec", self.namespace, "bash"]
        return subprocess.run(argv, env={**self.environment, **extra}, check=False).returncode

    def plug(self, tap: str, nic: Nic) -> None:
        """A TAP on the card's bridge, known there by the guest's MAC as libvirt and Xen leave it."""
        self.inside("ip", "tuntap", "add", tap, "mode", "tap", "vnet_hdr")
        self.inside("ip", "link", "set", tap, "up")
        self._vsctl("add-port", nic.bridge, tap, "--", "set", "interface", tap,
                    f'external_ids:attached-mac="{nic.mac}"')  # fmt: skip

    def close(self) -> None:
        """End everything that was started here, youngest first, and remove the namespace."""
        if self._channel is not None:
            self._channel.close()
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)
        subprocess.run(["ip", "netns", "del", self.namespace], check=False, capture_output=True)
        cache.remove(self.folder)
