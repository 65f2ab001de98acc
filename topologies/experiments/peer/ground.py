"""What all contenders stand on: a network namespace, an Open vSwitch with the userspace datapath, hosts at both ends.

    sender --- [first bridge] ... [last bridge] --- receiver (10.0.N.10), other receiver (10.0.N.11)

The hosts behind the last router have the kernel's own stack, which answers ARP as any host would.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fsctl.model.addresses import format_mac
from topologies.experiments.rig import HOST_MAC, OTHER_HOST_MAC
from topologies.experiments.search.fibs import SENDER_MAC
from topologies.experiments.wire import CLONE_NEWNET, TTL, Namespace, Wire
from topologies.processes import LabError, Whole, run
from topologies.sandbox import Sandbox, flow_count

PREFIXES = "ip,nw_dst=16.0.0.0/8"
"""Covers every rule for the prefixes of `rig.prefix`, and no other."""
RECEIVER_PORT, OTHER_PORT = 2, 3


@contextmanager
def entered(space: Namespace) -> Iterator[None]:
    """The calling thread is in the namespace, and so is all that it starts: daemons, threads, sockets."""
    keeper = space.inside[2]
    setns = ctypes.CDLL(None, use_errno=True).setns
    with open("/proc/thread-self/ns/net") as home, open(f"/proc/{keeper}/ns/net") as inside:
        if setns(inside.fileno(), CLONE_NEWNET):
            raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            setns(home.fileno(), CLONE_NEWNET)


class Ground(Whole):
    """Bridges, and hosts before the first and behind the last of `routers` routers."""

    def __init__(self, bridges: Sequence[str], routers: int) -> None:
        super().__init__()
        self.bridges, self.routers = list(bridges), routers
        self.ends = f"{bridges[0]}s0", f"{bridges[0]}r0"
        """Where packets are sent and received."""

    def _open(self) -> None:
        self.space = self._stack.enter_context(Namespace())
        self._stack.enter_context(entered(self.space))
        run("ip", "link", "set", "lo", "up")
        self.ovs = Sandbox(datapath="netdev")
        self._stack.callback(self.ovs.stop)
        self.ovs.start()
        for bridge in self.bridges[1:]:
            self.ovs.add_bridge(bridge)
        self.wire = self._stack.enter_context(Wire(self.space, self.ovs, self.bridges[0]))
        self._receivers()

    def _receivers(self) -> None:
        """The wire's far end moves to the last bridge; another host stands beside it."""
        run("ip", "link", "add", "other", "type", "veth", "peer", "name", "other0")
        for name in ("other", "other0"):
            run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
        run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1")  # two hosts of one network: each answers for itself alone
        for name, address, host in ((self.ends[1], HOST_MAC, 10), ("other0", OTHER_HOST_MAC, 11)):
            run("ip", "link", "set", name, "address", address)
            run("ip", "address", "add", f"10.0.{self.routers}.{host}/24", "dev", name)
        for name in ("other", "other0"):
            run("ip", "link", "set", name, "up")
        first, port = self.bridges[0], f"{self.bridges[0]}r"
        words = ["del-port", first, port]
        for name, number in ((port, RECEIVER_PORT), ("other", OTHER_PORT)):
            words += ["--", "add-port", self.bridges[-1], name, "--", "set", "interface", name, f"ofport_request={number}"]
        self.ovs.vsctl(*words)

    def count(self, match: str = "", bridges: Sequence[str] = ()) -> int:
        """Flow entries that `match` covers, in all bridges or in these."""
        return sum(flow_count(self.ovs, bridge, *([match] if match else [])) for bridge in bridges or self.bridges)

    def rules_for(self, bridge: str, prefix: str) -> str:
        """The rules of just this prefix, as ovs-ofctl prints them."""
        return self.ovs.ofctl("dump-flows", bridge, f"ip,nw_dst={prefix}")

    def lookups(self, entry_mac: str, destination: str) -> int:
        """Rules that a first packet hits on its whole way."""
        macs = f"dl_src={format_mac(SENDER_MAC)},dl_dst={entry_mac}"
        packet = f"in_port=1,udp,{macs},nw_src=10.0.0.1,nw_dst={destination},nw_ttl={TTL}"
        trace = self.ovs.appctl("ofproto/trace", self.bridges[0], packet)
        return len(re.findall(r"^ *\d+\. ", trace, re.MULTILINE))
