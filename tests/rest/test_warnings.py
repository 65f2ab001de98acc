"""What is allowed and hardly meant is said (E1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from falcon.testing import TestClient

from fsctl.model.fib import Page
from fsctl.status import SLOW_PATH, FlowStatus, Orphan

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


def test_fault_E9_a_flow_that_ends_as_slow_path_is_told(
    rest: TestClient, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`flows add` said "1 added"."""
    really = backend.flows

    def flows(router: str, page: Page | None = None) -> Iterator[FlowStatus]:
        return (replace(s, state=SLOW_PATH, reason="eth1 is down", hops=0) for s in really(router, page))

    monkeypatch.setattr(backend, "flows", flows)
    body = {"add": [flow("10.7.0.0/16"), flow("10.8.0.0/16", action="punt", set=None, out=None)]}
    del body["add"][1]["set"], body["add"][1]["out"]
    rest.simulate_put(FLOWS, json={"flows": [flow("10.9.0.0/16")]}, headers=ADMIN)
    answer = rest.simulate_patch(FLOWS, json=body, headers=ADMIN).json
    assert answer["not_bypassed"] == [{"match": {"in": "eth0", "ipv4_dst": "10.7.0.0/16"}, "reason": "eth1 is down"}]
    many = [flow(f"10.{n}.0.0/16") for n in range(20)]
    assert "not_bypassed" not in rest.simulate_patch(FLOWS, json={"add": many}, headers=ADMIN).json


def test_fault_E15_what_is_kept_aside_of_a_router_can_be_forgotten(rest: TestClient, backend: FakeBackend) -> None:
    backend.kept = [Orphan("vr9", 1_772_344_800, 1, "the configuration has no such router"), Orphan("vr8", 1_772_344_800, 1, "")]
    assert rest.simulate_delete("/v1/orphans", headers=ADMIN).status_code == 400
    assert rest.simulate_delete("/v1/orphans", params={"router": "vr9"}, headers=VR1).status_code == 403
    assert rest.simulate_delete("/v1/orphans", params={"router": "vr9"}, headers=ADMIN).json == {"forgotten": "vr9"}
    assert [orphan.router for orphan in backend.kept] == ["vr8"]
    again = rest.simulate_delete("/v1/orphans", params={"router": "vr9"}, headers=ADMIN)
    assert (again.status_code, again.json["field"]) == (404, "router")
