"""Every status that is not 2xx; what is refused leaves no trace."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from falcon.testing import TestClient

from fsctl.errors import (
    ConflictError,
    ForbiddenError,
    FsctlError,
    InvalidError,
    MalformedError,
    NotFoundError,
    StoreError,
    TooLargeError,
    UnavailableError,
)
from fsctl.northbound import make_app
from fsctl.northbound.resources import FLOW_BYTES, SMALL_BODY
from tests.rest.conftest import ADMIN, MAX_BODY, VR1, VR2, auth, flow
from tests.rest.fake import FakeBackend

FLOWS = "/v1/routers/vr1/flows"
JSON = {"Content-Type": "application/json"}


def problem(answer: Any, status: int, slug: str | None = None) -> dict[str, Any]:
    """The problem of an answer, of the right shape (RFC 9457)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    assert body["status"] == status
    assert body["type"] == ("about:blank" if slug is None else f"urn:fsctl:problem:{slug}")
    return body


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nonsense", b'{"flows": [NaN]}', b'{"flows": [-Infinity]}', b'{"flows": [], "flows": []}', b"\xff\xfe",
        b'{"flows": [{"match": {"in": "eth0", "in": "eth1"}}]}', b"[" * 100_000, b"1" * 5_000,
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)  # fmt: skip
def test_400_what_is_not_json(rest: TestClient, backend: FakeBackend, body: bytes) -> None:
    problem(rest.simulate_put(FLOWS, body=body, headers=VR1 | JSON), 400, "malformed-request")
    assert backend.writes == []


def test_400_body_shorter_than_it_says(rest: TestClient, backend: FakeBackend) -> None:
    headers = VR1 | JSON | {"Content-Length": "100"}
    problem(rest.simulate_put(FLOWS, body=b'{"flows": []}', headers=headers), 400, "malformed-request")
    assert backend.writes == []


@pytest.mark.parametrize("query", ["wait=maybe", "wait=", "wait=no&wait=no", "other=1", "Wait=no"])
def test_400_unknown_query(rest: TestClient, backend: FakeBackend, query: str) -> None:
    problem(rest.simulate_put(FLOWS, query_string=query, json={"flows": []}, headers=VR1), 400, "malformed-request")
    assert backend.writes == []


def test_400_delete_with_a_body(rest: TestClient, backend: FakeBackend) -> None:
    problem(rest.simulate_delete(FLOWS, json={"flows": []}, headers=VR1), 400, "malformed-request")
    assert backend.writes == []


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Basic dnIxOng=", "Bearer nobody", "Bearer vr1-token2", "vr1-token"]
)
def test_401(rest: TestClient, backend: FakeBackend, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = rest.simulate_put(FLOWS, json={"flows": []}, headers=headers)
    problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="fsctl"'
    assert backend.writes == []


CALLS = [
    ("GET", "/v1/routers/vr1", None),
    ("GET", FLOWS, None),
    ("PUT", FLOWS, {"flows": []}),
    ("PATCH", FLOWS, {"add": []}),
    ("DELETE", FLOWS, None),
    ("PATCH", "/v1/routers/vr1/interfaces/eth0", {"mtu": 1400}),
    (
        "PATCH",
        "/v1/routers/vr1/nexthops",
        {"out": "eth1", "eth_dst": "02:00:00:00:02:01", "new_eth_dst": "02:00:00:00:02:99"},
    ),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_403_another_routers_token(rest: TestClient, backend: FakeBackend, method: str, path: str, body: Any) -> None:
    problem(rest.simulate_request(method, path, json=body, headers=VR2), 403, "forbidden")
    assert (backend.writes, backend.interface_changes, backend.moves) == ([], [], [])
    assert rest.simulate_request(method, path, json=body, headers=VR1).status_code == 200
    assert rest.simulate_request(method, path, json=body, headers=ADMIN).status_code == 200


def test_403_does_not_tell_which_routers_there_are(rest: TestClient) -> None:
    problem(rest.simulate_get("/v1/routers/nobody", headers=VR2), 403, "forbidden")


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/bridges"), ("GET", "/v1/rules"), ("POST", "/v1/walk")])
def test_403_for_the_administrator_only(rest: TestClient, method: str, path: str) -> None:
    problem(rest.simulate_request(method, path, headers=VR1), 403, "forbidden")


def test_404(rest: TestClient) -> None:
    problem(rest.simulate_get("/v1/routers/nobody", headers=ADMIN), 404, "not-found")
    problem(rest.simulate_patch("/v1/routers/vr1/interfaces/eth9", json={"mtu": 1400}, headers=VR1), 404, "not-found")
    problem(rest.simulate_get("/v2/routers", headers=ADMIN), 404)
    problem(rest.simulate_get("/v1/routers/vr1/flows/", headers=ADMIN), 404)


def test_405(rest: TestClient) -> None:
    answer = rest.simulate_post(FLOWS, json={}, headers=VR1)
    problem(answer, 405)
    assert {"GET", "PUT", "PATCH", "DELETE"} <= set(answer.headers["Allow"].split(", "))


def test_413_body(rest: TestClient, backend: FakeBackend) -> None:
    body = b'{"flows": [' + b" " * MAX_BODY + b"]}"
    problem(rest.simulate_put(FLOWS, body=body, headers=VR1 | JSON), 413, "too-large")
    assert backend.writes == []


def test_411_and_413_chunked(rest: TestClient, backend: FakeBackend) -> None:
    headers = VR1 | JSON | {"Transfer-Encoding": "chunked"}
    problem(rest.simulate_put(FLOWS, body=b'{"flows": []}', headers=headers), 411)
    knowing = {"wsgi.input_terminated": True}
    big = b" " * (MAX_BODY + 1)
    problem(rest.simulate_put(FLOWS, body=big, headers=headers, extras=knowing), 413, "too-large")
    assert backend.writes == []
    assert rest.simulate_put(FLOWS, body=b'{"flows": []}', headers=headers, extras=knowing).status_code == 200


def test_413_more_flows_than_the_router_may_have(rest: TestClient, backend: FakeBackend) -> None:
    drops = [{"match": {"in": "eth0", "ipv4_dst": f"10.0.{n}.0/24"}, "action": "drop"} for n in range(4)]
    path = "/v1/routers/vr2/flows"
    assert problem(rest.simulate_put(path, json={"flows": drops}, headers=VR2), 413, "too-large")["value"] == 4
    assert backend.writes == []
    assert rest.simulate_put(path, json={"flows": drops[:3]}, headers=VR2).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Content-Type": "text/plain"}, {"Content-Type": "application/json; charset=latin-1"},
        JSON | {"Content-Encoding": "gzip"},
    ],
    ids=str,
)  # fmt: skip
def test_415(rest: TestClient, backend: FakeBackend, headers: dict[str, str]) -> None:
    problem(rest.simulate_put(FLOWS, body=b'{"flows": []}', headers=VR1 | headers), 415)
    assert backend.writes == []


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_content_types_that_are_json(rest: TestClient, content_type: str) -> None:
    headers = VR1 | {"Content-Type": content_type}
    assert rest.simulate_put(FLOWS, body=b'{"flows": []}', headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], None),
        ({}, "flows"),
        ({"flows": {}}, "flows"),
        ({"flows": [], "more": 1}, "more"),
        ({"flows": [flow(), flow("10.0.2.1/24")]}, "flows[1].match.ipv4_dst"),
        ({"flows": [flow(), flow("10.0.3.0/24"), flow()]}, "flows[2]"),
    ],
)
def test_422_names_the_field_and_refuses_all(rest: TestClient, backend: FakeBackend, body: Any, field: str | None) -> None:
    rest.simulate_put(FLOWS, json={"flows": [flow("10.9.0.0/16")]}, headers=VR1)
    answer = problem(rest.simulate_put(FLOWS, json=body, headers=VR1), 422, "invalid-value")
    assert answer.get("field") == field
    assert len(backend.writes) == 1
    assert [str(d.match.dst) for d in backend.network.fibs["vr1"]] == ["10.9.0.0/16"]


def test_422_the_same_match_in_add_and_remove(rest: TestClient, backend: FakeBackend) -> None:
    body = {"add": [flow()], "remove": [{"eth_dst": "02:00:00:00:01:01", "ipv4_dst": "10.0.2.0/24"}]}
    answer = problem(rest.simulate_patch(FLOWS, json=body, headers=VR1), 422, "invalid-value")
    assert "add[0]" in answer["detail"]
    assert "remove[0]" in answer["detail"]
    assert backend.writes == []


def test_422_interface(rest: TestClient, backend: FakeBackend) -> None:
    path = "/v1/routers/vr1/interfaces/eth0"
    bodies: list[tuple[Any, str]] = [
        ({}, "addresses"), ({"mtu": 67}, "mtu"), ({"mtu": True}, "mtu"), ({"addresses": ["10.0.0.1"]}, "addresses[0]"),
        ({"addresses": ["10.0.0.1/24", "10.0.0.1/24"]}, "addresses[1]"), ({"mac": "02:00:00:00:00:01"}, "mac"),
        ({"addresses": "10.0.0.1/24"}, "addresses"),
    ]  # fmt: skip
    for body, field in bodies:
        assert problem(rest.simulate_patch(path, json=body, headers=VR1), 422, "invalid-value")["field"] == field
    assert backend.interface_changes == []


def test_long_values_are_shortened(rest: TestClient) -> None:
    answer = rest.simulate_put(FLOWS, json={"flows": [flow(action="x" * 5000)]}, headers=VR1)
    assert len(problem(answer, 422, "invalid-value")["value"]) < 300


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 21])
def test_d13_numbers_that_json_cannot_repeat_are_refused(rest: TestClient, number: str) -> None:
    body = b'{"flows": [{"match": {"in": "eth0", "ipv4_dst": %s}, "action": "drop"}]}' % number.encode()
    assert "number" in problem(rest.simulate_put(FLOWS, body=body, headers=VR1 | JSON), 400, "malformed-request")["detail"]


@pytest.mark.parametrize(
    "error", [MalformedError, ForbiddenError, NotFoundError, ConflictError, TooLargeError, InvalidError, UnavailableError]
)
def test_what_the_backend_raises_is_the_answer(rest: TestClient, backend: FakeBackend, error: type[FsctlError]) -> None:
    backend.refusal = error("because", field="here", value={"a": 1})
    answer = problem(rest.simulate_put(FLOWS, json={"flows": []}, headers=VR1), error.status, error.slug)
    assert (answer["detail"], answer["field"], answer["value"]) == ("because", "here", {"a": 1})


def test_503_switches_do_not_confirm(rest: TestClient, backend: FakeBackend) -> None:
    backend.late = UnavailableError("the switches have not confirmed in time")
    problem(rest.simulate_put(FLOWS, json={"flows": []}, headers=VR1), 503, "unavailable")


def test_500_tells_the_log_and_not_the_caller(rest: TestClient, backend: FakeBackend, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "fsctl.rest")
    backend.refusal = RuntimeError("a secret")  # type: ignore[assignment]
    answer = problem(rest.simulate_put(FLOWS, json={"flows": []}, headers=VR1), 500, "internal-error")
    assert "secret" not in str(answer)
    assert "a secret" in caplog.text
    backend.refusal = StoreError("disk full")
    problem(rest.simulate_put(FLOWS, json={"flows": []}, headers=VR1), 500, "store-error")


@pytest.mark.parametrize(("method", "path"), [("PUT", "session"), ("PATCH", "nexthops"), ("PATCH", "interfaces/eth0")])
def test_413_what_is_not_flows_is_short(backend: FakeBackend, method: str, path: str) -> None:
    rest = TestClient(make_app(backend, auth()))
    body = b'{"id": "' + b"x" * SMALL_BODY + b'"}'
    problem(rest.simulate_request(method, f"/v1/routers/vr1/{path}", body=body, headers=VR1 | JSON), 413, "too-large")


def test_413_more_than_the_router_may_have(backend: FakeBackend) -> None:
    """vr2 may have 3 flows."""
    rest = TestClient(make_app(backend, auth()))
    padded = b'{"flows": [' + b" " * (SMALL_BODY + 3 * FLOW_BYTES - 13) + b"]}"
    assert rest.simulate_put("/v1/routers/vr2/flows", body=padded, headers=VR2 | JSON).status_code == 200
    problem(rest.simulate_put("/v1/routers/vr2/flows", body=padded + b" ", headers=VR2 | JSON), 413, "too-large")
