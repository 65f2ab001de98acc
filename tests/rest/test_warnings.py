"""What is allowed and hardly meant is said (E1)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from falcon.testing import TestClient

from .conftest import flow
from .fake import FakeBackend
from .test_calls import ADMIN, FLOWS, VR1


@pytest.mark.parametrize("dst", ["10.0.9.0/30", "10.0.9.0/31", "10.0.9.2/31"])
def test_fault_E1_a_connected_subnet_sent_to_one_host_is_warned_of(rest: TestClient, dst: str) -> None:
    answer = rest.simulate_put(FLOWS, json={"flows": [flow("10.7.0.0/16"), flow(dst)]}, headers=VR1).json
    (warning,) = answer["warnings"]
    assert warning.startswith(f"in the subnet of its own egress interface, and sent to one MAC address: {dst} out of eth1;")
    assert answer["added"] == 2


@pytest.mark.parametrize("dst", ["10.0.9.2/32", "10.0.8.0/29", "10.0.0.0/16", "0.0.0.0/0", "10.0.1.0/24", "fd00::/64"])
def test_hosts_and_routes_are_what_is_meant(rest: TestClient, dst: str) -> None:
    assert "warnings" not in rest.simulate_put(FLOWS, json={"flows": [flow(dst)]}, headers=VR1).json


def test_an_agent_is_not_warned(rest: TestClient) -> None:
    rest.simulate_put("/v1/routers/vr1/session", json={"id": "a", "lease": 10.0}, headers=VR1)
    answer = rest.simulate_put(FLOWS, params={"session": "a"}, json={"flows": [flow("10.0.9.0/30")]}, headers=VR1)
    assert (answer.status_code, "warnings" in answer.json) == (200, False)


def test_fault_E1_a_router_that_delegates_without_addresses_is_told(rest: TestClient, backend: FakeBackend) -> None:
    def told() -> list[str]:
        return list(rest.simulate_get("/v1/routers/vr1", headers=VR1).json["warnings"])

    bare = {n: replace(i, addresses=()) for n, i in backend.network.routers["vr1"].interfaces.items()}
    router = replace(backend.network.routers["vr1"], interfaces=bare)
    backend.network = replace(backend.network, routers={**backend.network.routers, "vr1": router})
    assert not told()
    rest.simulate_put(FLOWS, json={"flows": [flow("10.7.0.0/16")]}, headers=ADMIN)
    assert any("knows no address of this router" in warning for warning in told())
