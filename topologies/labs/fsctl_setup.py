"""fsctl's own set-up in a lab, as docs/xen.md tells an operator: tokens, configuration, controller."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from topologies.labs.plan import MGMT_HOST, REST_PORT, Plan
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
    config: dict[str, Any] = {
        "rest": {"host": MGMT_HOST, "port": REST_PORT},
        "store": store,
        "ovsdb": ovsdb,
        "admin_token_sha256": _sha256(tokens.admin),
        "bridges": list(plan.bridges),
        "routers": {
            guest.name: {
                "token_sha256": _sha256(tokens.routers[guest.name]),
                "interfaces": {nic.name: {"bridge": nic.bridge, "mac": nic.mac} for nic in guest.data_nics},
            }
            for guest in plan.routers
        },
    }
    return json.dumps(config, indent=2) + "\n"  # JSON is YAML


class Rest:
    """fsctl's REST, asked from where the bridges are."""

    def __init__(self, station: Station, token: str) -> None:
        self._station, self._token = station, token

    def get(self, path: str) -> Any:
        """The JSON answer; LabError if it is no success."""
        out = self._station.run(f"curl -sS --fail-with-body -m 20 -H 'Authorization: Bearer {self._token}' {URL}{path}")
        try:
            return json.loads(out)
        except ValueError as e:
            raise LabError(f"{path}: {out}") from e
