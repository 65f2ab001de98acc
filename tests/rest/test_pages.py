"""B9: long lists, page by page."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from falcon.testing import TestClient

from fsctl.model.addresses import Prefix
from fsctl.model.delegations import DROP, Delegation, FiveTuple, Forward, Match
from fsctl.model.fib import Fib, Page, RulePage, change_of, match_of_change, place_of
from fsctl.northbound import make_app
from fsctl.schema.cursor import MAX_PAGE, cursor_of, read_page, rule_cursor_of
from fsctl.status import Write
from tests.strategies import a_network, of_seed
from tests.unit.paper import MAC, Lab

from .conftest import auth
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


# --- rules ---------------------------------------------------------------------------------------------


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The whole controller: two interfaces, senders of their own, both IP versions, a connection and its fragments."""
    lab = Lab()
    hop, other = Forward("eth1", MAC["s0"]), Forward("eth1", MAC["b"])
    connection = FiveTuple(4, 0x0A00_0001, 0x0A07_0001, 6, 1, 2)
    found = [Match("eth0", Prefix.parse(text)) for text in ("fd00::/64", *(f"10.{n}.0.0/16" for n in range(COUNT)))]
    random.Random(3).shuffle(found)
    dropped = [Match("eth0", Prefix.parse("10.3.0.0/16"), MAC["a"])]
    dropped.append(Match("eth0", Prefix.host(4, connection.dst), None, connection))
    for router, verdict in (("s", other), ("r", hop)):
        changes = [change_of(match, verdict) for match in found] + [change_of(match, DROP) for match in dropped]
        lab.controller.write(Write(router, changes)).wait(10)
    lab.write("r", ("9.0.0.0/8", DROP))  # compiled last, listed first
    lab.settle()
    yield lab
    lab.stop()


@pytest.fixture
def whole(lab: Lab) -> TestClient:
    return TestClient(make_app(lab.controller, auth()))


def rules(rest: TestClient, **params: str) -> dict[str, Any]:
    answer = rest.simulate_get("/v1/rules", params=params, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def rules_in_pages(rest: TestClient, **params: str) -> list[str]:
    """Each as text, with its bridge."""
    read, answer = [], rules(rest, **params)
    while True:
        assert len(answer["rules"]) <= int(params["limit"])
        read += answer["rules"]
        if answer["next"] is None:
            return [f"{r['bridge']} {r['text']}" for r in read]
        answer = rules(rest, **params, after=answer["next"])


@pytest.mark.parametrize("limit", [1, 7, 2 * COUNT, 1000])
@pytest.mark.parametrize("bridge", [None, "x", "y", "z"])
def test_pages_of_rules_together_are_all_rules(whole: TestClient, limit: int, bridge: str | None) -> None:
    some = {} if bridge is None else {"bridge": bridge}
    answer = rules(whole, **some)
    assert "next" not in answer
    assert len(answer["rules"]) > COUNT or bridge == "z"
    read = rules_in_pages(whole, limit=str(limit), **some)
    assert sorted(read) == sorted(f"{r['bridge']} {r['text']}" for r in answer["rules"])
    assert read == rules_in_pages(whole, limit="3", **some)


def test_a_rule_that_stays_is_read_once_whatever_comes_and_goes(lab: Lab, whole: TestClient) -> None:
    first = rules(whole, limit="10", bridge="x")
    before = [r["text"] for r in first["rules"]]
    lab.write("r", ("10.9.0.0/16", None), ("10.20.0.0/16", None), ("10.0.5.0/24", DROP), ("10.200.0.0/16", DROP))
    after = [r["text"] for r in rules(whole, limit="1000", bridge="x", after=first["next"])["rules"]]
    assert len({*before, *after}) == len(before) + len(after)
    stays = {r["text"] for r in rules(whole, bridge="x")["rules"]} - {t for t in after if "10.200" in t}
    assert {t for t in stays if "10.0.5" not in t} <= {*before, *after}
    assert any("10.200" in t for t in after)
    assert not any("10.0.5" in t or "10.20." in t for t in after)


def test_rules_that_a_switch_rejected_leave_no_page_short(lab: Lab, whole: TestClient) -> None:
    here = lab.controller.installer.bridges["x"]
    keys = [r.key for r in lab.controller.rules("x", RulePage(10))]
    here.rejected = dict.fromkeys(keys[2:8], "OFPFMFC_TABLE_FULL")
    page_of_them = [r.key for r in lab.controller.rules("x", RulePage(10))]
    assert len(page_of_them) == 10
    assert page_of_them[:4] == keys[:2] + keys[8:]
    here.rejected = {}


@pytest.mark.parametrize(
    ("params", "field"),
    [({"limit": text}, "limit") for text in ("0", "-1", "x", str(MAX_PAGE + 1))]
    + [({"limit": "1", "after": text}, "after") for text in (*NO_CURSORS, cursor_of((("eth0", 4, None), 5)))]
    + [({"after": "W10"}, "after"), ({"limit": "1", "bridge": "none"}, "bridge")],
)  # fmt: skip
def test_400_of_rules_names_the_field(rest: TestClient, params: dict[str, str], field: str) -> None:
    answer = rest.simulate_get("/v1/rules", params=params, headers=ADMIN)
    assert (answer.status_code, answer.json["field"]) == (400, field)


def test_a_rules_cursor_is_none_of_flows(rest: TestClient) -> None:
    of_fragments = b64encode(b'["eth0", 4, null, [4, 1, 2, 6]]').decode()
    for strange in (rule_cursor_of(("vr1", ("eth0", 4, None), 5)), of_fragments):
        assert rest.simulate_get(FLOWS, params={"limit": "1", "after": strange}, headers=VR1).status_code == 400


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
