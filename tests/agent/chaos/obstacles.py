"""What ends a bypass: how it comes and goes, and what must not be delegated meanwhile. Written from docs/agent.md alone."""

from __future__ import annotations

from dataclasses import dataclass

from fsctl.model.delegations import Delegation, Forward

BOTH = (4, 6)
TOLD_S = 0.5
"""From the end of the command that puts it up to the last packet that is bypassed, if the kernel tells of it."""
POLLED_S = 1.0 + TOLD_S
"""If it does not: looked at once a second."""


@dataclass(frozen=True)
class Obstacle:
    """`scope`: an interface as fsctl calls it, or "" for the router; `direction`: in, out, both, hairpin.

    Commands run in the namespace; words with `=` at first are sysctls.
    """

    up: tuple[str, ...]
    down: tuple[str, ...]
    versions: tuple[int, ...] = BOTH
    scope: str = ""
    direction: str = "both"
    within_s: float = TOLD_S

    def forbids(self, version: int, ingress: str, egress: str) -> bool:
        """Whether packets of this version that came in there must not be bypassed out there."""
        if version not in self.versions:
            return False
        is_in, is_out = self.scope in ("", ingress), self.scope in ("", egress)
        return {"in": is_in, "out": is_out, "both": is_in or is_out, "hairpin": is_in and ingress == egress}[self.direction]

    def violated(self, delegation: Delegation) -> bool:
        dst, verdict = delegation.match.dst, delegation.verdict
        return isinstance(verdict, Forward) and self.forbids(dst.version, delegation.match.in_port, verdict.out)


def _nft(family: str, hook: str, rule: str, kind: str = "filter", rest: str = "", **more: object) -> Obstacle:
    """Table, chain and rule come in one transaction."""
    head = f"type {kind} hook {hook} {rest} priority 0 ;"
    up = f"nft add table {family} chaos ; add chain {family} chaos c {{ {head} }} ; add rule {family} chaos c {rule}"
    return Obstacle((up,), (f"nft delete table {family} chaos",), **more)  # type: ignore[arg-type]


def _sysctl(key: str, value: str, normal: str, **more: object) -> Obstacle:
    return Obstacle((f"={key} {value}",), (f"={key} {normal}",), **more)  # type: ignore[arg-type]


OBSTACLES = {
    "nft forward": _nft("inet", "forward", "drop"),
    "nft one port": _nft("ip", "forward", "udp dport 9999 drop", versions=(4,)),
    "nft prerouting, IPv6": _nft("ip6", "prerouting", "udp dport 9999 drop", versions=(6,)),
    "nft nat": _nft("ip", "prerouting", "tcp dport 80 dnat to 10.0.0.3", kind="nat", versions=(4,)),
    "nft ingress of r0": _nft("netdev", "ingress", "udp dport 9999 drop", rest="device r0", scope="eth0", direction="in"),
    "iptables": Obstacle(
        ("iptables-legacy -A FORWARD -p tcp --dport 99 -j DROP",), ("iptables-legacy -F FORWARD",), versions=(4,),
        within_s=POLLED_S,
    ),
    "tc on r1": Obstacle(
        ("tc qdisc replace dev r1 root tbf rate 1gbit burst 1m latency 50ms",), ("tc qdisc del dev r1 root",),
        scope="eth1", direction="out",
    ),
    "xfrm": Obstacle(
        ("ip xfrm policy add src 10.8.0.0/16 dst 10.9.0.0/16 dir fwd",), ("ip xfrm policy flush",), versions=(4,)
    ),
    "rule": Obstacle(
        ("ip rule add from 10.0.0.0/24 priority 100 lookup 100",), ("ip rule del priority 100",), versions=(4,)
    ),
    "rule, IPv6": Obstacle(
        ("ip -6 rule add from fd00:9::/64 priority 100 lookup 100",), ("ip -6 rule del priority 100",), versions=(6,)
    ),
    "forwarding off": _sysctl("ipv4/conf/r0/forwarding", "0", "1", versions=(4,), scope="eth0", direction="in"),
    "forwarding off, IPv6": _sysctl("ipv6/conf/all/forwarding", "0", "1", versions=(6,)),
    "rp_filter": _sysctl("ipv4/conf/r0/rp_filter", "1", "0", versions=(4,), scope="eth0", direction="in"),
    "redirects": _sysctl(
        "ipv4/conf/r1/send_redirects", "1", "0", versions=(4,), scope="eth1", direction="hairpin", within_s=POLLED_S
    ),
    "learned MTU": _sysctl("ipv4/ip_forward_use_pmtu", "1", "0", versions=(4,), within_s=POLLED_S),
}  # fmt: skip

ALWAYS = Obstacle((), (), versions=(6,), direction="hairpin")
"""Linux has no switch for IPv6 redirects."""
