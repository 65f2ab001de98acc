"""How fsctl's rows are recognised, and the values that it sets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

OURS = "fsctl"
"""The key in `external_ids` that marks a row as fsctl's; the value says what the row is for."""
LINK, CONTROLLER, PREFIX_TRACKING = "link", "controller", "prefixes"
PEER = "fsctl-peer"
"""In a patch port's `external_ids`: the bridge at the other end."""
OWNER = "fsctl-owner"
"""The controller target of the fsctl that made the row: several may share one database."""

LINK_TAG = 4095
"""No frame is ever in VLAN 4095 (IEEE 802.1Q, 9.6): NORMAL floods nothing into a port with this tag."""
NO_SPANNING_TREE = {"stp-enable": "false", "rstp-enable": "false"}
"""A patch port in a spanning tree would be blocked for 30 s or for good; RSTP on one ends ovs-vswitchd 3.1 (rstp.c:239)."""
PREFIXES = ("ipv6_dst", "nw_dst", "nw_src")
"""Fields whose prefixes the classifier tracks; three is Open vSwitch's limit."""
OPENFLOW = "OpenFlow14"
MAX_BACKOFF_MS = 1_000
INACTIVITY_PROBE_MS = 30_000
"""A large compilation may keep the controller from answering echo requests for longer than the default 5 s."""

Pair = frozenset[str]
"""Two bridges that a link joins."""


@lru_cache(maxsize=65_536)
def link_name(bridge: str, peer: str) -> str:
    """The patch port on `bridge` towards `peer`: the same in every run, at most 15 characters (IFNAMSIZ)."""
    return "fsl" + hashlib.blake2s(f"{bridge}>{peer}".encode(), digest_size=6).hexdigest()


def is_link(external_ids: Mapping[str, str]) -> bool:
    """Whether a port with these `external_ids` is an fsctl's patch port."""
    return external_ids.get(OURS) == LINK


def ids(purpose: str, owner: str | None, **more: str) -> dict[str, str]:
    """The `external_ids` of a row that fsctl makes."""
    return {OURS: purpose, **({OWNER: owner} if owner else {}), **more}
