"""A bridge that is taken out of the configuration, with real packets (userspace datapath; needs root)."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest
from ovsdb_lab import CONTROLLER, Box, are_made, pairs, stepping

from tests.waiting import eventually
from topologies.sandbox import available

pytestmark = [
    pytest.mark.ovs,
    pytest.mark.skipif(not available(), reason="Open vSwitch is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]
COOKIE = "0x667363746c000000"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def box() -> Iterator[Box]:
    value = Box(datapath="netdev")
    try:
        value.start()
        value.add_bridge("br-kept")
        value.add_bridge("br-left")
        yield value
    finally:
        value.stop()


@pytest.fixture
def hosts(box: Box) -> Iterator[tuple[str, str]]:
    """Two namespaces on br-left, 10.77.0.1 and 10.77.0.2."""
    names = (f"fsrel{os.getpid()}a", f"fsrel{os.getpid()}b")
    try:
        for n, name in enumerate(names, 1):
            port = f"fr{os.getpid()}{n}"
            ip("netns", "add", name)
            ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", port, "up")
            ip("-n", name, "addr", "add", f"10.77.0.{n}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            box.vsctl("add-port", "br-left", port)
        yield names
    finally:
        for n, name in enumerate(names, 1):
            subprocess.run(["ip", "link", "del", f"fr{os.getpid()}{n}"], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_fault_A6_release_loses_no_packet(box: Box, hosts: tuple[str, str]) -> None:
    with stepping(box) as links:
        links.manage(["br-kept", "br-left"], CONTROLLER)
        links.want(pairs(("br-kept", "br-left")))
        eventually(lambda: are_made(links, ("br-kept", "br-left")), "patch ports")
        box.ofctl("add-flow", "br-left", f"cookie={COOKIE},priority=1,actions=NORMAL")
        command = ["ip", "netns", "exec", hosts[0], "ping", "-q", "-i", "0.01", "-c", "200", "10.77.0.2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ping:
            eventually(lambda: "n_packets=0" not in box.ofctl("dump-flows", "br-left"), "pings pass")
            links.manage(["br-kept"], CONTROLLER)
            links.want(pairs())
            links.allow_release()
            eventually(lambda: COOKIE not in box.ofctl("dump-flows", "br-left"), "fsctl's rules are gone")
            assert ping.poll() is None, "it was released while pings passed"
            output, _ = ping.communicate(timeout=30)
    received = re.search(r"(\d+) received", output)
    assert received is not None, output
    assert int(received[1]) >= 198, output
    assert box.vsctl("get-controller", "br-left").split() == []
    assert not box.patch_ports("br-kept") | box.patch_ports("br-left")
