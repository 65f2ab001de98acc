"""Every call of the table in docs/rest.md, answered."""

from __future__ import annotations

import logging

import pytest
from falcon.testing import TestClient

from fsctl.errors import InvalidError
from fsctl.model.addresses import Prefix, parse_mac
from fsctl.model.delegations import Match
from fsctl.status import Failure, NexthopMove, WriteResult
from tests.rest.conftest import ADMIN, VR1, flow
from tests.rest.fake import FakeBackend

FLOWS = "/v1/routers/vr1/flows"


def test_put_replaces_and_counts(rest: TestClient, backend: FakeBackend) -> None:
    first = rest.simulate_put(FLOWS, json={"flows": [flow(), flow("10.0.3.0/24")]}, headers=VR1)
    assert first.status_code == 200
    assert first.json == {
        "revision": 1, "added": 2, "changed": 0, "removed": 0, "unchanged": 0, "failed": [], "waiting_for": [], "stored": True,
    }  # fmt: skip
    second = rest.simulate_put(FLOWS, json={"flows": [flow(), flow("fd00::/64")]}, headers=VR1)
    assert (second.json["added"], second.json["removed"], second.json["unchanged"]) == (1, 1, 1)
    assert [write.replace for write in backend.writes] == [True, True]


def test_patch_adds_and_removes(rest: TestClient, backend: FakeBackend) -> None:
    rest.simulate_put(FLOWS, json={"flows": [flow()]}, headers=VR1)
    body = {"add": [flow("10.0.3.0/24")], "remove": [{"in": "eth0", "ipv4_dst": "10.0.2.0/24"}]}
    answer = rest.simulate_patch(FLOWS, json=body, headers=VR1)
    assert (answer.status_code, answer.json["added"], answer.json["removed"]) == (200, 1, 1)
    assert [str(d.match.dst) for d in backend.network.fibs["vr1"]] == ["10.0.3.0/24"]
    assert not backend.writes[1].replace


def test_delete_removes_all(rest: TestClient, backend: FakeBackend) -> None:
    rest.simulate_put(FLOWS, json={"flows": [flow()]}, headers=VR1)
    assert rest.simulate_delete(FLOWS, headers=ADMIN).json["removed"] == 1
    assert len(backend.network.fibs["vr1"]) == 0


def test_flows_listed_are_flows_to_put_and_a_status(rest: TestClient) -> None:
    flows = [flow(), flow("10.0.3.0/24", action="punt")]
    for name in ("set", "out"):
        del flows[1][name]
    rest.simulate_put(FLOWS, json={"flows": flows}, headers=VR1)
    listed = rest.simulate_get(FLOWS, headers=VR1)
    assert (listed.json["router"], listed.json["revision"]) == ("vr1", 1)
    states = [f.pop("status") for f in listed.json["flows"]]
    assert [s["state"] for s in states] == ["installed", "slow_path"]
    assert rest.simulate_put(FLOWS, json={"flows": listed.json["flows"]}, headers=VR1).status_code == 422  # with status
    plain = [{k: v for k, v in f.items() if k != "status"} for f in listed.json["flows"]]
    assert rest.simulate_put(FLOWS, json={"flows": plain}, headers=VR1).json["unchanged"] == 2
    only = rest.simulate_get(FLOWS, params={"state": "slow_path"}, headers=VR1).json["flows"]
    assert [f["action"] for f in only] == ["punt"]


@pytest.mark.parametrize("count", [0, 1, 500, 501, 1003])
def test_long_lists_are_whole(rest: TestClient, count: int) -> None:
    body = {"flows": [flow(f"10.{n >> 8}.{n & 255}.0/24", action="drop") for n in range(count)]}
    for f in body["flows"]:
        del f["set"], f["out"]
    assert rest.simulate_put(FLOWS, json=body, headers=VR1).status_code == 200
    listed = rest.simulate_get(FLOWS, headers=VR1).json["flows"]
    assert len({f["match"]["ipv4_dst"] for f in listed}) == len(listed) == count


def test_without_waiting_the_answer_is_202(rest: TestClient, backend: FakeBackend) -> None:
    backend.late = AssertionError("must not wait")  # type: ignore[assignment]
    answer = rest.simulate_put(FLOWS, params={"wait": "no"}, json={"flows": [flow()]}, headers=VR1)
    assert (answer.status_code, answer.json["revision"], answer.json["added"]) == (202, 1, 1)


def test_failures_name_flow_bridge_and_error(rest: TestClient, backend: FakeBackend) -> None:
    match = Match("eth0", Prefix.parse("10.0.2.0/24"), parse_mac("02:00:00:00:00:0a"))
    backend.result = WriteResult(7, added=1, failed=(Failure(match, "br-a", "OFPFMFC_TABLE_FULL"),), waiting_for=("br-c",))
    answer = rest.simulate_put(FLOWS, json={"flows": [flow()]}, headers=ADMIN).json
    failed_match = {"in": "eth0", "eth_src": "02:00:00:00:00:0a", "ipv4_dst": "10.0.2.0/24"}
    assert answer["failed"] == [{"match": failed_match, "bridge": "br-a", "error": "OFPFMFC_TABLE_FULL"}]
    assert answer["waiting_for"] == ["br-c"]
    told = rest.simulate_put(FLOWS, json={"flows": [flow()]}, headers=VR1).json
    assert told["waiting_for"] == ["another bridge"]  # D17: vr1 is not plugged into br-c


def test_routers(rest: TestClient) -> None:
    assert [r["name"] for r in rest.simulate_get("/v1/routers", headers=ADMIN).json["routers"]] == ["vr1", "vr2"]
    assert [r["name"] for r in rest.simulate_get("/v1/routers", headers=VR1).json["routers"]] == ["vr1"]
    vr1 = rest.simulate_get("/v1/routers/vr1", headers=VR1).json
    assert (vr1["flows"], vr1["max_flows"]) == (0, 200_000)
    assert vr1["interfaces"]["eth0"] == {
        "bridge": "br-a", "port": "vif1.0", "ofport": 1, "mac": "02:00:00:00:01:01", "mtu": 1500,
        "mtu_from": "configuration", "addresses": ["10.0.1.254/24"], "addresses_from": "configuration",
        "up": True, "why_down": "",
    }  # fmt: skip


def test_interface_change(rest: TestClient, backend: FakeBackend) -> None:
    path = "/v1/routers/vr1/interfaces/eth0"
    answer = rest.simulate_patch(path, json={"addresses": ["10.0.1.1/24", "fd00::1/64"]}, headers=VR1)
    assert (answer.status_code, answer.json["changed"]) == (200, 1)
    rest.simulate_patch(path, json={"mtu": 1400}, headers=VR1)
    first, second = backend.interface_changes
    assert ([str(a) for a in first.addresses or ()], first.mtu) == (["10.0.1.1/24", "fd00::1/64"], None)
    assert (second.addresses, second.mtu) == (None, 1400)


def test_a_next_hops_new_mac(rest: TestClient, backend: FakeBackend) -> None:
    body = {"out": "eth1", "eth_dst": "02:00:00:00:02:01", "new_eth_dst": "02:00:00:00:02:99"}
    rest.simulate_put(FLOWS, json={"flows": [flow()]}, headers=VR1)
    assert rest.simulate_patch("/v1/routers/vr1/nexthops", json=body, headers=VR1).json["changed"] == 1
    old, new = (parse_mac(body[name]) for name in ("eth_dst", "new_eth_dst"))
    assert backend.moves == [NexthopMove("vr1", "eth1", old, new)]
    wrong = [("out", "eth9"), ("eth_dst", "x"), ("new_eth_dst", "02:00:00:00:01:02"), ("new_eth_dst", "ff:ff:ff:ff:ff:ff")]
    for field, value in wrong:
        answer = rest.simulate_patch("/v1/routers/vr1/nexthops", json=body | {field: value}, headers=VR1)
        assert (answer.status_code, answer.json["field"]) == (422, field)
    assert len(backend.moves) == 1


def test_bridges_and_rules(rest: TestClient) -> None:
    rest.simulate_put(FLOWS, json={"flows": [flow()]}, headers=VR1)
    bridges = rest.simulate_get("/v1/bridges", headers=ADMIN).json["bridges"]
    assert bridges[0]["ports"] == {"vif1.0": 1, "vifA": 2}
    assert bridges[0]["datapath_id"] == "0000000000000001"
    (rule,) = rest.simulate_get("/v1/rules", headers=ADMIN).json["rules"]
    assert rule["match"] == {"eth_dst": "02:00:00:00:01:01", "eth_type": 2048, "ipv4_dst": "10.0.2.0/24"}
    assert rule["text"] == (
        "table=1,priority=1048,dl_dst=02:00:00:00:01:01,dl_type=0x0800,nw_dst=10.0.2.0/24 "
        "actions=dec_ttl,set_field:02:00:00:00:02:02->eth_src,set_field:02:00:00:00:02:01->eth_dst,output:7"
    )
    assert [hop["router"] for hop in rule["chain"]] == ["vr1"]
    assert rest.simulate_get("/v1/rules", params={"bridge": "br-b"}, headers=ADMIN).json["rules"] == []


def test_walk_by_name_and_number(rest: TestClient) -> None:
    rest.simulate_put(FLOWS, json={"flows": [flow()]}, headers=VR1)
    packet = {"bridge": "br-a", "in_port": "vifA", "eth_dst": "02:00:00:00:01:01", "ipv4_dst": "10.0.2.5"}
    by_name = rest.simulate_post("/v1/walk", json=packet, headers=ADMIN)
    assert by_name.status_code == 200
    assert by_name.json == rest.simulate_post("/v1/walk", json=packet | {"in_port": 2}, headers=ADMIN).json
    assert (by_name.json["end"], by_name.json["final"]["ttl"], by_name.json["final"]["in_port"]) == ("bridged", 63, "vif2.1")
    assert by_name.json["hops"][0]["delegation"]["match"] == {"in": "eth0", "ipv4_dst": "10.0.2.0/24"}
    assert by_name.json["rule"]["bridge"] == "br-a"


def test_health_needs_no_token_and_tells_reasons_to_the_administrator_only(rest: TestClient, backend: FakeBackend) -> None:
    """D16: reasons name all bridges, and the rules of others there."""
    assert rest.simulate_get("/healthz").json == {"status": "ok"}
    assert rest.simulate_get("/readyz").json == {"status": "ready"}
    backend.reasons = ("bridge br-c is not connected",)
    not_ready = rest.simulate_get("/readyz", headers=ADMIN)
    assert (not_ready.status_code, not_ready.json["reasons"]) == (503, ["bridge br-c is not connected"])
    for headers in ({}, VR1):
        told = rest.simulate_get("/readyz", headers=headers)
        assert (told.status_code, told.json["count"]) == (503, 1)
        assert "br-c" not in told.text
    assert rest.simulate_get("/readyz", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_head_and_options(rest: TestClient) -> None:
    head = rest.simulate_head("/v1/routers/vr1", headers=VR1)
    assert (head.status_code, head.content) == (200, b"")
    assert rest.simulate_head("/v1/routers/vr1").status_code == 401
    options = rest.simulate_options(FLOWS, headers=VR1)
    assert {"GET", "PUT", "PATCH", "DELETE"} <= set(options.headers["Allow"].split(", "))


def test_one_log_line_per_write(rest: TestClient, backend: FakeBackend, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fsctl.rest")
    rest.simulate_get(FLOWS, headers=VR1)
    rest.simulate_put(FLOWS, json={"flows": [flow()]}, headers=VR1)
    backend.refusal = InvalidError("no\nnew line", field="x", value=1)
    rest.simulate_put(FLOWS, json={"flows": []}, headers=VR1)
    accepted, refused = caplog.messages
    assert accepted.startswith("PUT /v1/routers/vr1/flows by vr1 at the unix socket: 200 revision 1, +1 ~0 -0 =0, 0 failed (")
    assert refused.startswith("PUT /v1/routers/vr1/flows by vr1 at the unix socket: 422 x: no\\nnew line (got 1) (")
