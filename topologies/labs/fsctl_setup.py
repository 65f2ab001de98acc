"""fsctl's own set-up in a lab, as docs/xen.md tells an operator: tokens, configuration, controller."""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from topologies.labs.plan import MGMT_HOST, REST_PORT, SPARE, Nic, Plan, destination, way_back
from topologies.labs.remote import LabError, Station

URL = f"http://{MGMT_HOST}:{REST_PORT}"


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Tokens:
    """The administrator's token and one per router, made anew for every lab."""

    admin: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    routers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def for_plan(cls, plan: Plan) -> Tokens:
        return cls(routers={guest.name: secrets.token_urlsafe(24) for guest in plan.routers})


def configuration(plan: Plan, tokens: Tokens, *, store: str, ovsdb: str) -> str:
    """fsctl.yaml. Interfaces are declared by MAC: their ports, whose names follow the guests' ids, come from OVSDB."""
    cards = {guest.name: list(guest.data_nics) for guest in plan.routers}
    if SPARE.bridge in plan.bridges:
        cards["vr1"].append(SPARE)
    config: dict[str, Any] = {
        "rest": {"host": MGMT_HOST, "port": REST_PORT},
        "store": store,
        "ovsdb": ovsdb,
        "admin_token_sha256": _sha256(tokens.admin),
        "bridges": list(plan.bridges),
        "routers": {
            guest.name: {
                "token_sha256": _sha256(tokens.routers[guest.name]),
                "interfaces": {nic.name: {"bridge": nic.bridge, "mac": nic.mac} for nic in cards[guest.name]},
            }
            for guest in plan.routers
        },
    }
    return json.dumps(config, indent=2) + "\n"  # JSON is YAML


class Fsctl:
    """A running controller, asked over REST from where the bridges are."""

    def __init__(self, station: Station, plan: Plan, token: str) -> None:
        self._station, self._plan, self._token = station, plan, token

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer; LabError if it is no success."""
        data = "" if body is None else "-H 'Content-Type: application/json' -d " + shlex.quote(json.dumps(body))
        out = self._station.run(
            f"curl -sS --fail-with-body -m 30 -X {method} -H 'Authorization: Bearer {self._token}' {data} '{URL}{path}'"
        )
        try:
            return json.loads(out)
        except ValueError as e:
            raise LabError(f"{path}: {out}") from e

    def wait_until_ready(self, timeout_s: float = 120) -> None:
        """Until every bridge is connected and in step."""
        # Asked there, now and then: in an emulated dom0 every question takes time from what is asked about.
        ask = f"for i in $(seq 20); do curl -sS -m 10 {URL}/readyz | grep '\"ready\"' && break; sleep 1; done"
        self._station.until(ask, '"ready"', timeout_s)

    def ofport_of(self, nic: Nic) -> int:
        """The OpenFlow number of the port of a guest's card, found by the MAC that Xen or libvirt left in OVSDB."""
        find = f"ovs-vsctl --bare --columns=ofport find interface 'external_ids:attached-mac=\"{nic.mac}\"'"
        found = self._station.run(find).split()
        if len(found) != 1:
            raise LabError(f"expected one port with attached-mac {nic.mac}, found {found}")
        return int(found[0])

    def bypassed_hops(self, chain: int, back: bool = False) -> int:
        """How many routers the installed rule for nodea -> nodeb (or back) bypasses; 0 where there is no rule."""
        plan = self._plan
        router = plan.routers[chain - 1 if back else 0]
        sender = plan.nodeb.nics[chain] if back else plan.nodea.nics[0]
        report = self.ask("POST", "/v1/walk", {
            "bridge": sender.bridge, "in_port": self.ofport_of(sender), "eth_src": sender.mac,
            "eth_dst": router.nics[1 if back else 0].mac,
            "ipv4_src": sender.address.split("/")[0],
            "ipv4_dst": plan.nodea.nics[0].address.split("/")[0] if back else destination(chain),
        })  # fmt: skip
        return len(report["hops"]) if report["rule"] and report["end"] == "bridged" else 0

    def wait_for_bypass(self, enabled: bool, timeout_s: float = 120, chains: Sequence[int] | None = None) -> None:
        """Until all chains are bypassed whole in both directions, or none is; LabError after `timeout_s`."""
        end = time.monotonic() + timeout_s
        chains = range(1, self._plan.length + 1) if chains is None else chains
        waiting = [(chain, back) for chain in chains for back in (False, True)]
        while waiting:
            chain, back = waiting[0]
            if self.bypassed_hops(chain, back) == (chain if enabled else 0):
                waiting.pop(0)
            elif time.monotonic() > end:
                rules = "\n".join(rule["text"] for rule in self.ask("GET", "/v1/rules")["rules"])
                way = f"{'back ' if back else ''}over {chain} router(s)"
                raise LabError(f"the way {way} is {'not' if enabled else 'still'} bypassed; rules:\n{rules}")


def lab_bypass(station: Station, plan: Plan, fsctl: Fsctl, enabled: bool) -> None:
    """Start the routers' agents, or end them in order, which withdraws what they delegated."""
    for router in plan.routers:
        station.run(f"lab-agent {'start' if enabled else 'stop'}", guest=router.mgmt)
    if enabled:
        introduce(station, plan)
    fsctl.wait_for_bypass(enabled)


def introduce(station: Station, plan: Plan) -> None:
    """A packet each way on every path: routers delegate towards hosts whose MAC addresses they have learned."""
    for chain in range(1, plan.length + 1):
        station.run(way_back(chain), guest=plan.nodeb.mgmt)
        station.run(f"ping -c 2 -q {destination(chain)}", guest=plan.nodea.mgmt)
