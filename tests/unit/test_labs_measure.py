"""What the labs make of ping's words."""

from __future__ import annotations

import pytest

from topologies.labs.measure import median_rtt
from topologies.labs.remote import LabError

PING = """PING 10.0.2.2 (10.0.2.2) 56(84) bytes of data.
64 bytes from 10.0.2.2: icmp_seq=1 ttl=63 time=0.353 ms
64 bytes from 10.0.2.2: icmp_seq=2 ttl=63 time=13.1 ms
64 bytes from 10.0.2.2: icmp_seq=3 ttl=63 time=0.360 ms

--- 10.0.2.2 ping statistics ---
3 packets transmitted, 3 received, {loss}% packet loss, time 204ms
rtt min/avg/max/mdev = 0.353/4.604/13.100/6.007 ms
"""


def test_one_ping_that_had_to_wait_does_not_count() -> None:
    assert median_rtt(PING.format(loss=0)) == 0.36


def test_a_lost_ping_is_an_error() -> None:
    with pytest.raises(LabError, match="25% packet loss"):
        median_rtt(PING.format(loss=25))
