"""B9: long lists, page by page."""

from __future__ import annotations

import random
from typing import Any

import pytest
from falcon.testing import TestClient

from fsctl.fib import Fib, Page, match_of_change, place_of
from fsctl.model import Delegation
from fsctl.schema.cursor import MAX_PAGE, cursor_of, read_page
from tests.strategies import a_network, of_seed

from .fake import FakeBackend
from .test_calls import ADMIN, FLOWS, VR1, flow

COUNT = 25
NO_CURSORS = ("x", "!!", "W10", "é", "A" * 3000, "WyJhIiw3LG51bGwsMV0", "W1tdLDQsbnVsbCwxXQ")


def fill(rest: TestClient) -> None:
    body = {"flows": [flow(f"10.{n}.0.0/16") for n in range(COUNT)]}
    assert rest.simulate_put(FLOWS, json=body, headers=ADMIN).status_code == 200


def page(rest: TestClient, **params: str) -> dict[str, Any]:
    answer = rest.simulate_get(FLOWS, params=params, headers=VR1)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


@pytest.mark.parametrize("limit", [1, 7, COUNT - 1, COUNT, COUNT + 1])
def test_fault_B9_pages_together_are_the_list(rest: TestClient, limit: int) -> None:
    fill(rest)
    whole = page(rest)
    assert "next" not in whole
    read: list[Any] = []
    answer = page(rest, limit=str(limit))
    while True:
        assert len(answer["flows"]) <= limit
        read += answer["flows"]
        if answer["next"] is None:
            break
        answer = page(rest, limit=str(limit), after=answer["next"])
    assert read == sorted(whole["flows"], key=lambda f: int(f["match"]["ipv4_dst"].split(".")[1]))


def test_what_stays_is_read_once_whatever_comes_and_goes(rest: TestClient) -> None:
    fill(rest)
    first = page(rest, limit="10")
    matches = [f["match"] for f in first["flows"]]
    gone = [matches[-1], {"in": "eth0", "ipv4_dst": "10.20.0.0/16"}]
    body = {"add": [flow("10.0.5.0/24"), flow("10.200.0.0/16")], "remove": gone}
    assert rest.simulate_patch(FLOWS, json=body, headers=VR1).status_code == 200
    rest_of_it = page(rest, limit="100", after=first["next"])
    read = [f["match"]["ipv4_dst"] for f in (*first["flows"], *rest_of_it["flows"])]
    assert read == [f"10.{n}.0.0/16" for n in (*range(20), *range(21, COUNT), 200)]


def test_a_state_picks_among_a_pages_flows(rest: TestClient) -> None:
    fill(rest)
    answer = page(rest, limit="10", state="refused")
    assert answer["flows"] == []
    assert answer["next"] is not None


@pytest.mark.parametrize(
    ("params", "field"),
    [({"limit": text}, "limit") for text in ("0", "-1", "x", str(MAX_PAGE + 1), "9" * 40, "1e3", "")]
    + [({"limit": "1", "after": text}, "after") for text in NO_CURSORS]
    + [({"after": "W10"}, "after")],
)  # fmt: skip
def test_400_names_the_field(rest: TestClient, params: dict[str, str], field: str) -> None:
    answer = rest.simulate_get(FLOWS, params=params, headers=VR1)
    if params.get("limit") == "":
        assert answer.status_code in (200, 400), "an empty parameter may not be one"
        return
    assert (answer.status_code, answer.json["field"]) == (400, field)


def test_a_cursor_of_another_table_is_a_place_like_any(rest: TestClient, backend: FakeBackend) -> None:
    """It shows nothing of others: only where to go on."""
    fill(rest)
    strange = cursor_of((("zzz", 6, 5), 0))
    assert page(rest, limit="5", after=strange)["flows"] == []


def test_every_delegation_has_its_place() -> None:
    for seed in range(200):
        network = a_network(of_seed(seed))
        for fib in network.fibs.values():
            read = list(in_pages(fib, random.Random(seed).choice((1, 2, 3, 50))))
            assert sorted(map(str, read)) == sorted(map(str, fib))
            assert len(read) == len(set(read))


def in_pages(fib: Fib, limit: int) -> list[Delegation]:
    found: list[Delegation] = []
    after: dict[str, str] = {}
    while True:
        asked = read_page({"limit": str(limit), **after})
        assert isinstance(asked, Page)
        here = [Delegation(match_of_change(part, key), fib.verdict(number)) for part, key, number in fib.page(asked)]
        found += here
        if len(here) < limit:
            return found
        after = {"after": cursor_of(place_of(here[-1].match))}
