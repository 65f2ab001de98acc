"""Every IP protocol: bypassed or not, as the specification has it."""

from __future__ import annotations

import pytest

from fsctl.model.addresses import BITS, IPV4, IPV6, Prefix
from fsctl.model.delegations import DROP, Forward, Match, Verdict
from fsctl.model.packet import Packet
from fsctl.specification.walk import BRIDGED, DROPPED, SLOW_PATH
from tests.builders import HOST_A, HOST_B, HOST_PORT, line, mac, with_delegations
from tests.properties.laws import ORDINARY_SOURCE, Bench

BYPASSED = {4, 6, 17, 33, 41, 47, 50, 51, 115, 132, 136}
ICMP = {IPV4: 1, IPV6: 58}


@pytest.mark.parametrize("version", sorted(BITS))
@pytest.mark.parametrize(("verdict", "end"), [(Forward("eth1", HOST_B), BRIDGED), (DROP, DROPPED)], ids=["forward", "drop"])
def test_fault_D14_a_protocol_is_bypassed_or_it_is_not(version: int, verdict: Verdict, end: str) -> None:
    """A drop in the router's place passes the same checks: else it would drop what the router lets through."""
    everywhere = Match("eth0", Prefix(version, 0, 0))
    bench = Bench.of(with_delegations(line(1), "r0", (everywhere, verdict)))
    dst = Prefix.parse("203.0.113.1" if version == IPV4 else "2001:db8:1::1").value
    ends = {}
    for protocol in range(256):
        sent = Packet("br0", HOST_PORT, HOST_A, mac(0, 0), version, ORDINARY_SOURCE[version], dst, ip_proto=protocol)
        found, _ = bench.check(sent)
        ends[protocol] = found.end
    assert {p for p, how in ends.items() if how == end} == BYPASSED | {ICMP[version]}
    assert {how for how in ends.values() if how != end} == {SLOW_PATH}
