"""The chain where switches are the routers: one bridge per router, joined by plain patch ports.

    sender --- 1 [p1] 2 --- 1 [p2] 2 --- ... --- 1 [pN] 2 --- receiver
                                                      3 --- other receiver

Networks are those of `rig.Rig`: 10.0.0.0/24 before the first router, 10.0.k.0/24 behind router k.
"""

from __future__ import annotations

from topologies.experiments.peer.ground import Ground

BEFORE, BEHIND = 1, 2
"""Port numbers of every bridge."""


def bridges(routers: int) -> list[str]:
    return [f"p{k}" for k in range(1, routers + 1)]


def address(router: int, port: int) -> str:
    """A router's address at a port: .2 looks back, .1 onwards."""
    return f"10.0.{router - 1}.2" if port == BEFORE else f"10.0.{router}.1"


def gateway(router: int, routers: int) -> str:
    """The next hop of all routes of a router: the next router, or a host behind the last."""
    return f"10.0.{router}.10" if router == routers else address(router + 1, BEFORE)


def other_gateway(routers: int) -> str:
    """The other host behind the last router."""
    return f"10.0.{routers}.11"


def join(ground: Ground) -> None:
    """Patch ports between neighbours, and the router's number as datapath id."""
    words: list[str] = []
    for number, bridge in enumerate(ground.bridges, 1):
        words += ["--", "set", "bridge", bridge, f"other_config:datapath-id={number:016x}", "other_config:disable-in-band=true"]
    for here, there in zip(ground.bridges, ground.bridges[1:], strict=False):
        for name, bridge, peer, number in ((f"{here}{there}", here, f"{there}{here}", BEHIND),
                                           (f"{there}{here}", there, f"{here}{there}", BEFORE)):  # fmt: skip
            words += ["--", "add-port", bridge, name, "--", "set", "interface", name, "type=patch",
                      f"options:peer={peer}", f"ofport_request={number}"]  # fmt: skip
    ground.ovs.vsctl(*words[1:])


def connect(ground: Ground, bridge: str, port: int) -> None:
    """A bridge to the controller on this port."""
    ground.ovs.vsctl("set-controller", bridge, f"tcp:127.0.0.1:{port}")
