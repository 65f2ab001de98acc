"""Recordings of what a real kernel says, for test_recordings. As root: `python -m tests.agent.recorder` makes them anew.

A recording holds raw netlink messages as `type:flags:payload` in hex: the tables before, all notifications, the tables
after. `record` also serves other scenes than those below: ospf.json is the router r1 of `make demo-agent` while FRR
converges and one of its links is cut and mended.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fsctl.agent.codec import Message, event
from fsctl.agent.netlink import DUMPS, Kernel

from .netns import KernelOf, Namespace, namespaces, veth

FOLDER = Path(__file__).parent / "recordings"
QUIET_S = 1.0
MACS = {"r0": "02:00:00:00:01:00", "r1": "02:00:00:00:01:01", "r2": "02:00:00:00:01:02"}
KNOWN = {MACS["r0"]: "eth0", MACS["r1"]: "eth1"}

SETTING = """
addr add 10.0.0.1/24 dev r0; addr add 10.0.1.1/24 dev r1; addr add fd00:1::1/64 dev r1 nodad; addr add 10.0.2.1/24 dev r2
neigh add 10.0.1.2 lladdr 02:00:00:00:00:0a dev r1 nud permanent; neigh add 10.0.2.2 lladdr 02:00:00:00:00:0b dev r2 nud permanent
neigh add fd00:1::2 lladdr 02:00:00:00:00:0a dev r1 nud permanent; route add 10.5.0.0/16 via 10.0.1.2
"""
SCENES = {
    "routes": """
route add 10.6.0.0/16 via 10.0.1.2; route add blackhole 10.6.9.0/24; route add 10.6.9.128/25 via 10.0.1.2 metric 20
route replace 10.6.9.128/25 via 10.0.2.2 metric 20; route add 10.6.9.128/25 via 10.0.1.2 metric 10
route del 10.6.9.128/25 metric 10
route replace 10.5.0.0/16 nexthop via 10.0.1.2 nexthop via 10.0.2.2; route replace 10.5.0.0/16 via 10.0.1.2
route add default via 10.0.1.2; route add unreachable 10.7.0.0/16; route add throw 10.8.0.0/16; route del 10.7.0.0/16
route add 10.9.0.0/16 via 10.0.1.2 tos 0x10; -6 route add fd05::/32 via fd00:1::2; -6 route add fd05:0:1::/48 via fd00:1::2
-6 route append fd05::/32 via fd00:1::3; -6 route del fd05::/32 via fd00:1::3; -6 route add default via fd00:1::2
route add 10.6.1.0/24 via 10.0.1.77; route add 10.6.2.0/24 dev r1; addr add 10.6.3.1/24 dev r0
route add local 10.6.4.4/32 dev lo; route del local 10.6.4.4/32 dev lo; route del 10.6.2.0/24
route replace 10.6.1.0/24 via 10.0.1.2
""",
    "nexthops": """
nexthop add id 1 via 10.0.1.2 dev r1; nexthop add id 2 via 10.0.2.2 dev r2; nexthop add id 3 blackhole
nexthop add id 10 group 1/2; route add 10.6.0.0/16 nhid 1; route add 10.7.0.0/16 nhid 10; route add 10.6.9.0/24 nhid 3
nexthop replace id 10 group 1; nexthop replace id 1 via 10.0.1.77 dev r1; nexthop replace id 1 via 10.0.1.2 dev r1
route replace 10.6.9.0/24 nhid 1; nexthop add id 4 via fd00:1::2 dev r1; route add 10.8.0.0/16 nhid 4
nexthop replace id 10 group 1/4; route del 10.8.0.0/16
""",
    "links": """
route add default via 10.0.1.2; route add 10.6.0.0/16 via 10.0.2.2; link set r1 down; link set r1 up
neigh replace 10.0.1.2 lladdr 02:00:00:00:00:0c dev r1 nud permanent; route add default via 10.0.1.2
link set r0 mtu 1400; link set r0 mtu 1500; neigh replace 10.0.1.3 lladdr 02:00:00:00:00:0d dev r1 nud reachable
neigh change 10.0.1.3 lladdr 02:00:00:00:00:0d dev r1 nud stale; neigh del 10.0.1.3 dev r1; addr del 10.0.2.1/24 dev r2
nexthop add id 1 via 10.0.1.2 dev r1; route add 10.7.0.0/16 nhid 1; nexthop del id 1
link add v8 type veth peer name v9; link set v8 up; link set v9 up; addr add 10.9.0.1/24 dev v9; link del v9
rule add from 10.0.0.0/24 lookup 100; rule del from 10.0.0.0/24 lookup 100; addr add 10.0.2.1/24 dev r2
""",
}


def commands(text: str) -> Iterator[str]:
    """One `ip` command each."""
    return (command for line in text.strip().splitlines() for part in line.split(";") if (command := part.strip()))


def _text(message: Message) -> str:
    return f"{message.type}:{message.flags}:{bytes(message.payload).hex()}"


def message_of(text: str) -> Message:
    kind, flags, payload = text.split(":")
    return Message(int(kind), int(flags), 0, memoryview(bytes.fromhex(payload)))


def _dump(kernel: Kernel) -> list[list[str]]:
    """One list for each of netlink.DUMPS."""
    return [[_text(m) for m in kernel.answers(*dump)] for dump in DUMPS]


def record(kernel: Kernel, act: Callable[[], None], known: dict[str, str]) -> dict[str, object]:
    """What `kernel` says while `act` runs and for a moment after. `known`: MAC -> fsctl's name."""
    before = _dump(kernel)
    list(kernel._route.drain(1 << 20))
    act()
    time.sleep(QUIET_S)
    events = [_text(m) for m in kernel._route.drain(1 << 20) if event(m) is not None]
    return {"known": known, "before": before, "events": events, "after": _dump(kernel)}


def scene(text: str) -> dict[str, object]:
    """A router with three interfaces, of which fsctl knows two, and what `text` does to it."""
    with namespaces("s", "t") as (ns, peers):
        ns.sysctl("ipv6/conf/all/forwarding", "1")
        ns.sysctl("ipv6/conf/default/dad_transmits", "0")
        for interface, mac in MACS.items():
            veth(ns, interface, peers, f"p{interface}")
            ns.ip(f"link set {interface} address {mac}")
        _run(ns, SETTING)
        time.sleep(QUIET_S)
        kernel = KernelOf(ns.name)
        try:
            return record(kernel, lambda: _run(ns, text), KNOWN)
        finally:
            kernel.close()


def _run(ns: Namespace, text: str) -> None:
    for command in commands(text):
        ns.ip(command)


def save(name: str, recording: dict[str, object]) -> None:
    (FOLDER / f"{name}.json").write_text(json.dumps(recording, indent=0) + "\n")


if __name__ == "__main__":
    for scene_name in sys.argv[1:] or SCENES:
        save(scene_name, scene(SCENES[scene_name]))
