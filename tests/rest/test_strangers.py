"""Whoever has no token is served so often, and logged now and then (D15, D26)."""

from __future__ import annotations

import logging

import pytest
from falcon.testing import TestClient

from fsctl.errors import BusyError
from fsctl.northbound.limits import BURST, MOST_ADDRESSES, RATE_PER_S, SAID_S, Quiet, Strangers
from fsctl.northbound.middleware import MOST_LOGGED
from tests.rest.conftest import ADMIN, VR1, flow

GUEST = "192.0.2.7"
WRONG = {"Authorization": "Bearer wrong"}
FLOWS = "/v1/routers/vr1/flows"


def test_d15_strangers_are_served_so_often() -> None:
    now = [0.0]
    strangers = Strangers(lambda: now[0])
    for _ in range(int(BURST)):
        strangers.admit(GUEST)
    with pytest.raises(BusyError):
        strangers.admit(GUEST)
    strangers.admit("192.0.2.8")
    for _ in range(1000):
        strangers.admit("")
    now[0] += 1.0
    for _ in range(int(RATE_PER_S)):
        strangers.admit(GUEST)
    with pytest.raises(BusyError):
        strangers.admit(GUEST)


def test_d15_what_is_remembered_is_bounded() -> None:
    strangers, quiet = Strangers(), Quiet()
    for n in range(MOST_ADDRESSES + 100):
        strangers.admit(f"a{n}")
        quiet.left_out(f"a{n}")
    assert len(strangers._known) == len(quiet._known) == MOST_ADDRESSES


def test_d15_a_flood_without_a_token_keeps_no_router_out(rest: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen = [rest.simulate_put(FLOWS, json={"flows": []}, headers=WRONG, remote_addr=GUEST).status_code for _ in range(200)]
    assert set(seen) == {401, 429}
    last = rest.simulate_get("/healthz", remote_addr=GUEST)
    assert (last.status_code, last.headers["Retry-After"]) == (429, "1")
    assert rest.simulate_put(FLOWS, json={"flows": [flow()]}, headers=VR1, remote_addr=GUEST).status_code == 200
    assert rest.simulate_get("/readyz", headers=ADMIN, remote_addr=GUEST).status_code == 200
    refusals = [r.getMessage() for r in caplog.records if " 401 " in r.getMessage() or " 429 " in r.getMessage()]
    assert len(refusals) <= 2
    assert GUEST in refusals[0]


def test_d26_every_line_has_the_address_and_is_short(rest: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rest.simulate_put(FLOWS, json={"flows": [flow()]}, headers=VR1, remote_addr="192.0.2.9")
    rest.simulate_put("/v1/routers/" + "x" * 3000 + "/flows", json={}, headers=ADMIN, remote_addr="192.0.2.9")
    lines = [r.getMessage() for r in caplog.records if r.name == "fsctl.rest"]
    assert len(lines) == 2
    assert all(len(line) < MOST_LOGGED + 50 for line in lines)
    assert "vr1 at 192.0.2.9: 200" in lines[0]


def test_d15_what_was_left_out_is_counted() -> None:
    now = [100.0]
    quiet = Quiet(lambda: now[0])
    assert quiet.left_out("a") == 0
    assert [quiet.left_out("a") for _ in range(5)] == [None] * 5
    now[0] += SAID_S
    assert quiet.left_out("a") == 5
