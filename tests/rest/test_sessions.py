"""An agent's session over REST: opened, renewed, refused, ended."""

from __future__ import annotations

import falcon.testing

from tests.rest.conftest import ADMIN, VR1, flow
from tests.rest.fake import FakeBackend

SESSION = "/v1/routers/vr1/session"
FLOWS = "/v1/routers/vr1/flows"
FLOW = flow()
Client = falcon.testing.TestClient


def opened(rest: Client, id: str = "a", **more: object) -> falcon.testing.Result:
    return rest.simulate_put(SESSION, json={"id": id, "lease": 10, **more}, headers=VR1)


def test_a_session_is_opened_and_seen(rest: Client) -> None:
    reasons = [{"name": "firewall", "scope": "eth1", "reason": "a forward hook drops"}]
    answer = opened(rest, graceful_restart=30, reasons=reasons)
    assert answer.json == {"id": "a", "lease": 10.0, "graceful_restart": 30.0, "synced": False, "seq": 0}
    shown = rest.simulate_get("/v1/routers/vr1", headers=VR1).json
    assert shown["session"]["id"] == "a"
    assert shown["not_bypassed"] == reasons


def test_writes_come_from_the_session_in_order(rest: Client) -> None:
    opened(rest)
    assert rest.simulate_put(FLOWS, json={"flows": []}, headers=VR1).status_code == 409
    assert rest.simulate_put(FLOWS, json={"flows": []}, headers=ADMIN).status_code == 200
    ours = {"session": "a", "seq": "4"}
    assert rest.simulate_put(FLOWS, json={"flows": [FLOW]}, params=ours, headers=VR1).status_code == 200
    assert rest.simulate_put(FLOWS, json={"flows": [FLOW]}, params=ours, headers=VR1).status_code == 409
    assert opened(rest).json["synced"] is True
    stranger = {"session": "b", "seq": "9"}
    assert rest.simulate_patch(FLOWS, json={"add": [FLOW]}, params=stranger, headers=VR1).status_code == 409


def test_a_second_agent_is_refused(rest: Client, backend: FakeBackend) -> None:
    opened(rest)
    refused = opened(rest, "b")
    assert (refused.status_code, refused.json["field"]) == (409, "id")
    backend.now += 11
    assert opened(rest, "b").status_code == 200


def test_an_ended_session_leaves_nothing(rest: Client, backend: FakeBackend) -> None:
    opened(rest)
    rest.simulate_put(FLOWS, json={"flows": [FLOW]}, params={"session": "a", "seq": "1"}, headers=VR1)
    assert rest.simulate_delete(SESSION, headers=VR1).status_code == 400
    assert rest.simulate_delete(SESSION, params={"session": "b"}, headers=VR1).status_code == 409
    assert rest.simulate_delete(SESSION, params={"session": "a"}, headers=VR1).json["removed"] == 1
    assert rest.simulate_get("/v1/routers/vr1", headers=VR1).json["session"] is None


def test_a_bad_session_is_refused_by_name(rest: Client) -> None:
    for body, field in (
        ({"id": "", "lease": 10}, "id"),
        ({"id": "a", "lease": 0.5}, "lease"),
        ({"id": "a", "lease": True}, "lease"),
        ({"id": "a", "lease": 10, "graceful_restart": -1}, "graceful_restart"),
        ({"id": "a", "lease": 10, "reasons": ["x"]}, "reasons[0]"),
        ({"id": "a"}, "lease"),
    ):
        answer = rest.simulate_put(SESSION, json=body, headers=VR1)
        assert (answer.status_code, answer.json["field"]) == (422, field)
