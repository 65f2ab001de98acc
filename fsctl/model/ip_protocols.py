"""IP protocols, and which of them are bypassed."""

from __future__ import annotations

from fsctl.model.addresses import IPV4, IPV6

TCP, UDP, ICMPV6 = 6, 17, 58
NO_PROTO = 0
"""OVS does not decrement the TTL of IP protocol 0 (odp-util.c, commit_set_nw_action; seen on 3.1)."""
_CARRIERS = (4, TCP, UDP, 33, 41, 47, 50, 51, 115, 132, 136)
"""IPv4 and IPv6 in IP, TCP, UDP, DCCP, GRE, ESP, AH, L2TP, SCTP, UDP-Lite (IANA, Protocol Numbers)."""
BYPASSED_PROTOCOLS = {IPV4: (1, *_CARRIERS), IPV6: (*_CARRIERS, ICMPV6)}
"""The IP protocols that are bypassed: each that a sender uses costs a cached flow for each TTL (decision 20)."""
