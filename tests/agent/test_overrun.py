"""A real overrun of the kernel's messages (hazard 23): they are lost, it is noticed, and a dump makes it good."""

from __future__ import annotations

import subprocess

import pytest

from fsctl.agent import netlink
from fsctl.agent.fib import Fold
from fsctl.agent.follow import RESYNC_PAUSE_SECONDS, Follower
from fsctl.agent.netlink import Kernel
from fsctl.model import IPV4, parse_mac

from .netns import inside, namespaces, needs_root, veth

ROUTES = 4000


@needs_root
def test_hazard_23_lost_messages_are_noticed_and_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "RECEIVE_BUFFER_BYTES", 16_384)
    with namespaces("s", "t") as (ns, peers):
        veth(ns, "r0", peers, "p0")
        ns.ip("addr add 10.0.0.1/24 dev r0")
        ns.ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:0a dev r0 nud permanent")
        with inside(ns.name):
            kernel = Kernel()
        try:
            follower = Follower(kernel, fold := Fold({parse_mac(ns.mac("r0")): "eth0"}))
            follower.resync(0.0)
            batch = "".join(f"route add 10.{1 + n // 250}.{n % 250}.0/24 via 10.0.0.2\n" for n in range(ROUTES))
            subprocess.run(["ip", "-n", ns.name, "-batch", "-"], input=batch, text=True, check=True)
            while follower.due() > RESYNC_PAUSE_SECONDS:
                follower.pump()
                assert follower.events < ROUTES, "nothing was lost: the test says nothing"
            assert follower.overruns
            follower.resync(1.0)
            fold.settle()
            assert sum(1 for route in fold.state.ribs[IPV4].all() if route.legs and route.legs[0].gateway) == ROUTES
        finally:
            kernel.close()
