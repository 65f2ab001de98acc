"""What an agent may rely on (docs/agent.md, docs/rest.md): the fakes that other tests use and the real controller agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.targets import TARGETS, Answer, RealController, RestStandIn, Target

NOT_SYNCED, CONFLICT = "urn:fsctl:problem:session-not-synced", "urn:fsctl:problem:conflict"


@pytest.fixture(params=TARGETS)
def fsctl(request: pytest.FixtureRequest) -> Iterator[Target]:
    target: Target = TARGETS[request.param]()
    yield target
    target.close()


def flow(dst: str, mac: str = "02:00:00:00:00:99") -> dict[str, Any]:
    return {"match": {"in": "eth0", "ipv4_dst": dst}, "action": "forward", "set": {"eth_dst": mac}, "out": "eth1"}


def open_session(fsctl: Target, id: str = "a", lease: float = 10.0, grace: float = 0.0, **more: Any) -> Answer:
    body = {"id": id, "lease": lease, "graceful_restart": grace, "reasons": [], **more}
    return fsctl.call("PUT", "/session", body)


def put(fsctl: Target, *dsts: str, seq: int, id: str = "a") -> Answer:
    return fsctl.call("PUT", "/flows", {"flows": [flow(dst) for dst in dsts]}, {"session": id, "seq": str(seq)})


def patch(fsctl: Target, dst: str, seq: int, id: str = "a") -> Answer:
    return fsctl.call("PATCH", "/flows", {"add": [flow(dst)], "remove": []}, {"session": id, "seq": str(seq)})


def there(fsctl: Target) -> set[str]:
    status, answer = fsctl.call("GET", "/flows")
    assert status == 200
    return {f["match"]["ipv4_dst"] for f in answer["flows"]}


def session(fsctl: Target) -> Any:
    """Without the time since when it is open."""
    shown = fsctl.call("GET")[1]["session"]
    return shown and {name: value for name, value in shown.items() if name != "since"}


def counts(answer: Answer) -> tuple[int, int, int, int]:
    status, body = answer
    assert status == 200, body
    return body["added"], body["changed"], body["removed"], body["unchanged"]


def test_a_session_is_opened_renewed_and_shown(fsctl: Target) -> None:
    assert session(fsctl) is None
    reasons = [{"name": "firewall"}]
    opened = {"id": "a", "lease": 10.0, "graceful_restart": 30.0, "synced": False, "seq": 0}
    assert open_session(fsctl, grace=30.0, reasons=reasons) == (200, opened)
    assert open_session(fsctl, grace=30.0, reasons=reasons) == (200, opened)
    assert session(fsctl) == opened
    assert fsctl.call("GET")[1]["not_bypassed"] == reasons


def test_counts_of_writes(fsctl: Target) -> None:
    open_session(fsctl)
    assert counts(put(fsctl, "10.1.0.0/16", "10.2.0.0/16", seq=1)) == (2, 0, 0, 0)
    assert counts(put(fsctl, "10.2.0.0/16", "10.3.0.0/16", seq=2)) == (1, 0, 1, 1)
    body = {"add": [flow("10.2.0.0/16", "02:00:00:00:00:98")], "remove": [{"in": "eth0", "ipv4_dst": "10.7.0.0/16"}]}
    assert counts(fsctl.call("PATCH", "/flows", body, {"session": "a", "seq": "3"})) == (0, 1, 0, 1)
    assert counts(fsctl.call("DELETE", "/flows", None, {"session": "a", "seq": "4"})) == (0, 0, 2, 0)
    assert there(fsctl) == set()


def test_a_write_that_changes_nothing_has_the_revision_of_the_one_before(fsctl: Target) -> None:
    open_session(fsctl)
    first = put(fsctl, "10.1.0.0/16", seq=1)[1]["revision"]
    assert put(fsctl, "10.1.0.0/16", seq=2)[1]["revision"] == first
    assert put(fsctl, seq=3)[1]["revision"] == first + 1
    assert put(fsctl, seq=4)[1]["revision"] == first + 1


def test_seq_and_synced_follow_the_writes(fsctl: Target) -> None:
    open_session(fsctl)
    put(fsctl, "10.1.0.0/16", seq=5)
    assert (session(fsctl)["synced"], session(fsctl)["seq"]) == (True, 5)
    patch(fsctl, "10.2.0.0/16", seq=9)
    assert (session(fsctl)["synced"], session(fsctl)["seq"]) == (True, 9)
    assert open_session(fsctl)[1]["seq"] == 9


@pytest.mark.parametrize("seq", [4, 5])
def test_a_late_write_is_refused(fsctl: Target, seq: int) -> None:
    open_session(fsctl)
    put(fsctl, "10.1.0.0/16", seq=5)
    for status, answer in (put(fsctl, seq=seq), patch(fsctl, "10.2.0.0/16", seq=seq)):
        assert (status, answer["type"], answer["field"]) == (409, CONFLICT, "seq")
    assert there(fsctl) == {"10.1.0.0/16"}
    assert session(fsctl)["seq"] == 5


def test_a_refused_write_takes_no_number_and_does_not_sync(fsctl: Target) -> None:
    open_session(fsctl)
    status, _ = fsctl.call("PUT", "/flows", {"flows": [flow("10.1.0.1/16")]}, {"session": "a", "seq": "1"})
    assert status == 422
    assert (session(fsctl)["synced"], session(fsctl)["seq"]) == (False, 0)
    assert put(fsctl, "10.1.0.0/16", seq=1)[0] == 200


def test_fault_B5_a_change_before_the_whole_table_is_refused(fsctl: Target) -> None:
    open_session(fsctl)
    status, answer = patch(fsctl, "10.0.0.0/8", seq=1)
    assert (status, answer["type"], answer["field"]) == (409, NOT_SYNCED, "session")
    assert there(fsctl) == set()
    assert (session(fsctl)["synced"], session(fsctl)["seq"]) == (False, 0)
    assert put(fsctl, "10.0.0.0/8", seq=1)[0] == 200
    assert patch(fsctl, "10.1.0.0/16", seq=2)[0] == 200


def test_fault_B5_an_agent_that_slept_past_its_lease_has_to_send_everything(fsctl: Target) -> None:
    open_session(fsctl)
    put(fsctl, "10.0.0.0/8", "10.1.0.0/16", seq=1)
    fsctl.pass_time(10.1)
    assert there(fsctl) == set()
    assert session(fsctl) is None
    status, answer = patch(fsctl, "10.0.0.0/8", seq=2)
    assert (status, answer["type"]) == (409, CONFLICT)
    assert open_session(fsctl)[1] == {"id": "a", "lease": 10.0, "graceful_restart": 0.0, "synced": False, "seq": 0}
    assert patch(fsctl, "10.0.0.0/8", seq=3)[1]["type"] == NOT_SYNCED
    assert there(fsctl) == set()


def test_within_the_grace_the_table_stays_and_the_same_agent_goes_on(fsctl: Target) -> None:
    open_session(fsctl, grace=30.0)
    put(fsctl, "10.0.0.0/8", seq=1)
    fsctl.pass_time(20)
    assert open_session(fsctl, grace=30.0)[1]["synced"] is True
    assert patch(fsctl, "10.1.0.0/16", seq=2)[0] == 200
    assert there(fsctl) == {"10.0.0.0/8", "10.1.0.0/16"}


def test_within_the_grace_another_agent_takes_over_and_is_not_synced(fsctl: Target) -> None:
    open_session(fsctl, grace=30.0)
    put(fsctl, "10.0.0.0/8", seq=1)
    status, answer = open_session(fsctl, "b")
    assert (status, answer["type"], answer["field"]) == (409, CONFLICT, "id")
    fsctl.pass_time(20)
    assert open_session(fsctl, "b")[1]["synced"] is False
    assert there(fsctl) == {"10.0.0.0/8"}
    assert patch(fsctl, "10.1.0.0/16", seq=1, id="b")[1]["type"] == NOT_SYNCED
    assert patch(fsctl, "10.1.0.0/16", seq=2, id="a")[1]["type"] == CONFLICT
    assert put(fsctl, "10.1.0.0/16", seq=1, id="b")[0] == 200
    assert there(fsctl) == {"10.1.0.0/16"}


def test_after_the_grace_the_table_is_withdrawn(fsctl: Target) -> None:
    open_session(fsctl, grace=30.0)
    put(fsctl, "10.0.0.0/8", seq=1)
    fsctl.pass_time(39)
    assert there(fsctl) == {"10.0.0.0/8"}
    fsctl.pass_time(2)
    assert there(fsctl) == set()


def test_every_admitted_call_renews_the_lease(fsctl: Target) -> None:
    open_session(fsctl)
    put(fsctl, "10.0.0.0/8", seq=1)
    calls = (
        lambda n: patch(fsctl, f"10.{n}.0.0/16", seq=n),
        lambda n: fsctl.call("PATCH", "/interfaces/eth0", {"mtu": 1400 + n}, {"session": "a", "seq": str(n)}),
        lambda _: open_session(fsctl),
    )
    for n in range(2, 8):
        fsctl.pass_time(6)
        assert calls[n % 3](n)[0] == 200
    assert session(fsctl) is not None


def test_writes_without_the_session_are_the_administrators_alone(fsctl: Target) -> None:
    open_session(fsctl)
    put(fsctl, "10.0.0.0/8", seq=1)
    status, answer = fsctl.call("PUT", "/flows", {"flows": []})
    assert (status, answer["type"], answer["field"]) == (409, CONFLICT, "session")
    assert there(fsctl) == {"10.0.0.0/8"}
    assert fsctl.call("PATCH", "/flows", {"remove": [{"in": "eth0", "ipv4_dst": "10.0.0.0/8"}]}, is_admin=True)[0] == 200
    assert (session(fsctl)["synced"], session(fsctl)["seq"]) == (False, 1)
    assert patch(fsctl, "10.1.0.0/16", seq=2)[1]["type"] == NOT_SYNCED
    assert open_session(fsctl)[1]["synced"] is False


def test_without_any_session_a_router_writes_as_it_likes(fsctl: Target) -> None:
    assert fsctl.call("PATCH", "/flows", {"add": [flow("10.0.0.0/8")]})[0] == 200
    assert fsctl.call("DELETE", "/flows")[0] == 200
    status, answer = put(fsctl, seq=1)
    assert (status, answer["field"]) == (409, "session")


def test_a_session_ends_with_its_table(fsctl: Target) -> None:
    open_session(fsctl)
    put(fsctl, "10.0.0.0/8", seq=1)
    status, answer = fsctl.call("DELETE", "/session", None, {"session": "b"})
    assert (status, answer["type"], answer["field"]) == (409, CONFLICT, "session")
    assert there(fsctl) == {"10.0.0.0/8"}
    assert counts(fsctl.call("DELETE", "/session", None, {"session": "a"})) == (0, 0, 1, 0)
    assert there(fsctl) == set()
    assert session(fsctl) is None
    assert fsctl.call("DELETE", "/session", None, {"session": "a"})[0] == 409
    assert open_session(fsctl)[1]["synced"] is False


def test_interfaces_are_told_before_the_table(fsctl: Target) -> None:
    open_session(fsctl)
    ours = {"session": "a", "seq": "1"}
    answer = fsctl.call("PATCH", "/interfaces/eth0", {"addresses": ["10.0.1.1/24"], "mtu": 1400}, ours)
    assert counts(answer) == (0, 1, 0, 0)
    assert (session(fsctl)["synced"], session(fsctl)["seq"]) == (False, 1)
    assert fsctl.call("PATCH", "/interfaces/eth0", {"mtu": 1300}, ours)[1]["field"] == "seq"
    assert fsctl.call("PATCH", "/interfaces/eth9", {"mtu": 1300}, {"session": "a", "seq": "2"})[0] == 404
    shown = fsctl.call("GET")[1]["interfaces"]["eth0"]
    assert (shown["addresses"], shown["mtu"]) == (["10.0.1.1/24"], 1400)


def test_fault_B8_null_gives_a_value_back_to_the_configuration(fsctl: Target) -> None:
    def change(body: dict[str, Any]) -> Any:
        answer = fsctl.call("PATCH", "/interfaces/eth0", body)
        assert answer[0] == 200
        return fsctl.call("GET")[1]["interfaces"]["eth0"], counts(answer)

    before = fsctl.call("GET")[1]["interfaces"]["eth0"]
    assert (before["mtu"], before["mtu_from"], before["addresses_from"]) == (1500, "configuration", "configuration")
    shown, _ = change({"mtu": 1400, "addresses": []})
    assert (shown["mtu"], shown["mtu_from"], shown["addresses"], shown["addresses_from"]) == (1400, "rest", [], "rest")
    shown, counted = change({"mtu": None})
    assert (shown["mtu"], shown["mtu_from"], shown["addresses_from"]) == (1500, "configuration", "rest")
    assert counted == (0, 1, 0, 0)
    shown, _ = change({"addresses": None})
    assert shown == before
    shown, counted = change({"mtu": 1500})  # the same value, but now the router's own word
    assert (shown["mtu_from"], counted) == ("rest", (0, 0, 0, 1))


# --- what only REST has ----------------------------------------------------------------------------------------


@pytest.fixture(params=["REST stand-in", "controller"])
def rest(request: pytest.FixtureRequest) -> Iterator[RestStandIn | RealController]:
    target = TARGETS[request.param]()
    assert isinstance(target, RestStandIn | RealController)
    yield target
    target.close()


def test_without_waiting(rest: RestStandIn | RealController) -> None:
    open_session(rest)
    query = {"session": "a", "seq": "1", "wait": "no"}
    status, answer = rest.call("PUT", "/flows", {"flows": [flow("10.0.0.0/8")]}, query)
    assert (status, answer["added"], answer["failed"], answer["waiting_for"]) == (202, 1, [], [])
    assert session(rest)["synced"] is True
    status, answer = rest.call("PUT", "/flows", {"flows": []}, query)
    assert (status, answer["field"]) == (409, "seq")


def test_more_flows_than_the_router_may_have(rest: RestStandIn | RealController) -> None:
    body = {"flows": [flow(f"10.{n >> 8}.{n & 255}.0/24") for n in range(1000)]}
    vr2_is_small = isinstance(rest, RestStandIn)
    path, limit = ("/v1/routers/vr2/flows", 3) if vr2_is_small else ("/flows", 1000)
    assert rest.call("PUT", path, {"flows": body["flows"][:limit]}, is_admin=True)[0] == 200
    status, answer = rest.call("PATCH", path, {"add": [flow("11.0.0.0/8")]}, is_admin=True)
    assert (status, answer["field"], answer["value"]) == (413, "flows", limit + 1)


def test_a_move_of_a_next_hop_is_a_change(rest: RestStandIn | RealController) -> None:
    open_session(rest)
    body = {"out": "eth1", "eth_dst": "02:00:00:00:00:99", "new_eth_dst": "02:00:00:00:00:98"}
    assert rest.call("PATCH", "/nexthops", body, {"session": "a", "seq": "1"})[1]["type"] == NOT_SYNCED
    put(rest, "10.0.0.0/8", seq=1)
    assert counts(rest.call("PATCH", "/nexthops", body, {"session": "a", "seq": "2"})) == (0, 1, 0, 0)
    assert session(rest)["seq"] == 2


def test_what_is_kept_aside_is_the_administrators_to_see(rest: RestStandIn | RealController) -> None:
    assert rest.call("GET", "/v1/orphans")[0] == 403
    assert rest.call("GET", "/v1/orphans", is_admin=True) == (200, {"orphans": []})
