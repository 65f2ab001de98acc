"""What the bridges remember of senders: who gets a frame after somebody else has claimed its receiver's MAC (X1 to X3)."""

from __future__ import annotations

import re

import pytest

from tests.waiting import eventually

from .host import MAC, Host

BROADCAST, VICTIM = "ff:ff:ff:ff:ff:ff", "02:00:00:00:10:01"
PROBE = f"in_port=1,dl_src={MAC['a']},dl_dst={VICTIM},dl_type=0x88b5"


def plain(dump: str) -> str:
    """A dump with numbers for ports."""
    return re.sub(r'"?b0-p(\d)"?', r"\1", dump)


def says(host: Host, port: int, eth_src: str, tag: str = "") -> None:
    """A broadcast frame from port `port` of b0."""
    frame = (BROADCAST + eth_src).replace(":", "") + tag + "88b5" + "00" * 46
    host.ovs.appctl("netdev-dummy/receive", f"b0-p{port}", frame)
    host.ovs.appctl("revalidator/wait")


def receiver(host: Host) -> str:
    """Where a frame for the victim goes; the dummy datapath's port numbers are turned into names."""
    numbers = dict(
        reversed(words) for line in host.ovs.appctl("dpctl/show").splitlines()
        if (words := line.replace("port", "").replace(":", "").split()[:2]) and len(words) == 2 and words[0].isdigit()
    )  # fmt: skip
    names = {number: name for name, number in numbers.items()}
    return ",".join(names.get(word, word) for word in host.trace(PROBE).split(","))


@pytest.mark.parametrize("setting", ["trunks=0,10", "protected=true", "vlan_mode=native-untagged"])
def test_fault_X1_a_neighbour_cannot_keep_what_is_for_a_host_behind_an_exempt_port(host: Host, setting: str) -> None:
    """One frame with its MAC address was enough for five minutes: what the host sent itself was not learned."""
    host.ovs.vsctl("set", "port", "b0-p5", setting)
    eventually(lambda: "priority=8,in_port=5" in plain(host.rules("b0")))
    says(host, 5, VICTIM)
    assert receiver(host) == "b0-p5"
    says(host, 3, VICTIM)
    assert receiver(host) == "b0-p3", "as on any bridge"
    says(host, 5, VICTIM)
    assert receiver(host) == "b0-p5"


def test_fault_X2_two_ports_that_exchange_their_numbers_do_not_exchange_their_hosts(host: Host) -> None:
    says(host, 6, VICTIM)
    assert receiver(host) == "b0-p6"
    host.ovs.vsctl("set", "interface", "b0-p6", "ofport_request=7", "--", "set", "interface", "b0-p7", "ofport_request=6")
    eventually(lambda: receiver(host) != "b0-p7")
    says(host, 6, VICTIM)
    assert receiver(host) == "b0-p6"


def test_fault_X3_a_host_that_sends_priority_tagged_frames_is_found(host: Host) -> None:
    says(host, 8, VICTIM)
    says(host, 3, VICTIM)
    assert receiver(host) == "b0-p3"
    says(host, 8, VICTIM, tag="8100a000")
    assert receiver(host) == "b0-p8"
    says(host, 8, "03:00:00:00:00:01", tag="81000000")
    assert "dl_dst=03:00:00:00:00:01" not in host.ovs.ofctl("dump-flows", "b0", "table=7"), "a group is nobody's"
