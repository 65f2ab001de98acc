"""docs/pipeline.md shows what Open vSwitch holds: every rule of br-a, word for word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import eventually
from topologies.control import Control
from topologies.sandbox import Sandbox, available

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pipeline.md"
A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
OURS = "cookie=0x6673000000000000/0xffff000000000000"
"""fsctl's own rules and those that the switch has learned; nobody else writes here."""
PLACES = {
    "r1": {"eth0": ("br-a", "02:00:00:00:01:01", "10.0.1.254/24"), "eth1": ("br-b", "02:00:00:00:01:02", "10.0.2.1/24")},
    "r2": {"eth0": ("br-b", "02:00:00:00:02:01", "10.0.2.2/24"), "eth1": ("br-c", "02:00:00:00:02:02", "10.0.3.254/24")},
}
PORTS = {"r1.eth0": "br-a-p2", "r1.eth1": "br-b-p1", "r2.eth0": "br-b-p2", "r2.eth1": "br-c-p2"}
FLOWS = (
    ("r1", "eth0", "10.0.3.0/24", "eth1", "02:00:00:00:02:01"),
    ("r2", "eth0", "10.0.3.0/24", "eth1", B),
    ("r2", "eth1", "10.0.1.0/24", "eth0", "02:00:00:00:01:02"),
    ("r1", "eth1", "10.0.1.0/24", "eth0", A),
)

pytestmark = [pytest.mark.ovs, pytest.mark.skipif(not available(), reason="Open vSwitch is not installed")]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandbox]:
    """The page's network: A is at port 1 of br-a, B at port 1 of br-c."""
    ovs = Sandbox()
    interfaces = {
        name: {
            i: {
                "bridge": bridge, "port": PORTS[f"{name}.{i}"], "mac": mac, "addresses": [address],
                "mtu": 1400 if (name, i) == ("r2", "eth1") else 1500,
            }
            for i, (bridge, mac, address) in places.items()
        }
        for name, places in PLACES.items()
    }  # fmt: skip
    bridges = ["br-a", "br-b", "br-c"]
    config = {"bridges": bridges, "routers": {name: {"interfaces": found} for name, found in interfaces.items()}}
    try:
        ovs.start()
        for bridge in bridges:
            ovs.add_bridge(bridge, ports=2)
        control = Control(tmp_path, config, "127.0.0.1", ovs)
        try:
            control.start()
            _delegate(control)
            yield ovs
        finally:
            control.stop()
    finally:
        ovs.stop()


def _delegate(control: Control) -> None:
    for router, ingress, dst, out, eth_dst in FLOWS:
        flow = {"match": {"in": ingress, "ipv4_dst": dst}, "action": "forward", "set": {"eth_dst": eth_dst}, "out": out}
        control.client.patch_flows(router, add=[flow])
    eventually(lambda: all(f["status"]["state"] == "installed" for r in PLACES for f in control.client.flows(r)))


def shown() -> set[str]:
    """The rules of br-a on the page."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines() if re.match(r" (table=|priority=)", line)]
    return {plain(line) for line in lines}


def plain(line: str) -> str:
    """A rule as the page writes it: numbers for ports, without its cookie."""
    line = re.sub(r'"?br-a-p(\d)"?', r"\1", line.strip())
    line = re.sub(r"^cookie=0x[0-9a-f]+, ", "", line)
    return re.sub(r"cookie=0x66736c[0-9a-f]{6}", "cookie=0x66736c......", line)  # differs by the port's UUID


def test_the_page_shows_every_rule_of_a_bridge(box: Sandbox) -> None:
    frame = ("ff:ff:ff:ff:ff:ff" + A).replace(":", "") + "88b5" + "00" * 46
    box.appctl("netdev-dummy/receive", "br-a-p1", frame)
    box.appctl("revalidator/wait")
    dumped = box.ofctl("dump-flows", "br-a", "--no-stats", "--no-names", OURS).splitlines()
    there = {plain(line) for line in dumped if "actions=" in line}
    if there != shown():
        print(*sorted(there), sep="\n")
    assert there == shown()
