"""Rules of others in table 0: which of them may match what a router's port sends. Pure.

A bypassed packet does not arrive at the last router's port, so a rule about that port would not see it. If such a rule
does more than NORMAL (drops, filters, marks), the router's interface is not bypassed.
"""

from __future__ import annotations

from collections.abc import Iterable

from fsctl.model.addresses import MULTICAST_BIT
from fsctl.openflow.decode import ForeignRule
from fsctl.openflow.rules import Field
from fsctl.pipeline.fixed_rules import ETH_TYPE, VLAN_PRESENT


def policy_for(policies: Iterable[ForeignRule], ofport: int, mac: int) -> str:
    """The text of a rule that may match an IP packet which the router's MAC sends from its port; empty if there is none."""
    return next((rule.text for rule in policies if _may_match(rule.match, ofport, mac)), "")


def _may_match(match: tuple[Field, ...], ofport: int, mac: int) -> bool:
    return all(_is_possible(field, ofport, mac) for field in match)


def _is_possible(field: Field, ofport: int, mac: int) -> bool:
    """Whether an untagged unicast IP packet with this port and source MAC can have that field. Unknown fields: yes."""
    name, value, mask = field
    if name == "in_port":
        return value == ofport
    if name == "eth_src":
        return not (value ^ mac) & (-1 if mask is None else mask)
    if name == "eth_type":
        return value in ETH_TYPE.values()
    if name == "eth_dst":
        is_fixed = mask is None or bool(mask & MULTICAST_BIT)
        return not (is_fixed and value & MULTICAST_BIT)
    if name == "vlan_tci":
        is_fixed = mask is None or bool(mask & VLAN_PRESENT)
        return not (is_fixed and value & VLAN_PRESENT)
    return True
