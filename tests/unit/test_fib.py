"""A FIB holds delegations compactly and gives back what was put in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsctl.model.addresses import IPV4, IPV6, Prefix
from fsctl.model.delegations import DROP, PUNT, Delegation, FiveTuple, Forward, Match, Verdict
from fsctl.model.fib import Fib, change_of, match_of_change
from fsctl.model.ip_protocols import TCP
from fsctl.model.prefix_keys import key_of, lengths, mask, prefix_of

P8, P16 = Prefix.parse("10.0.0.0/8"), Prefix.parse("10.0.0.0/16")
CONNECTION = FiveTuple(IPV4, 1, P8.value, TCP, 5, 6)
MATCHES = st.sampled_from(
    [Match(i, p, s) for i in ("eth0", "eth1") for p in (P8, P16, Prefix.parse("fd00::/16")) for s in (None, 7)]
    + [Match("eth0", Prefix.host(IPV4, CONNECTION.dst), s, CONNECTION) for s in (None, 7)]
)
VERDICTS: st.SearchStrategy[Verdict] = st.sampled_from([PUNT, DROP, Forward("eth0", 1), Forward("eth1", 1), Forward("eth1", 2)])


@given(st.lists(st.tuples(MATCHES, st.none() | VERDICTS)))
def test_a_fib_is_a_mapping_of_matches_to_verdicts(history: list[tuple[Match, Verdict | None]]) -> None:
    fib, model = Fib(), dict[Match, Verdict]()
    for match, verdict in history:
        fib.apply(change_of(match, verdict))
        model.pop(match, None)
        if verdict is not None:
            model[match] = verdict
    assert {d.match: d.verdict for d in fib} == model
    assert len(fib) == len(model) == len(list(fib))
    assert all(fib.get(match) == model.get(match) for match, _ in history)
    assert all(part.prefixes or part.connections for part in fib.parts.values()), "no empty part stays"


@given(st.lists(st.tuples(MATCHES, VERDICTS)))
def test_a_fib_survives_being_taken_apart(items: list[tuple[Match, Verdict]]) -> None:
    fib = Fib([Delegation(*item) for item in items])
    assert set(Fib(list(fib))) == set(fib)


@given(MATCHES)
def test_a_match_survives_as_a_change(match: Match) -> None:
    change = change_of(match, DROP)
    assert match_of_change(change.part, change.key) == match


@given(st.lists(VERDICTS))
def test_equal_verdicts_have_one_number_and_numbers_give_them_back(verdicts: list[Verdict]) -> None:
    fib = Fib()
    numbers = [fib.number(v) for v in verdicts]
    assert [fib.verdict(n) for n in numbers] == verdicts
    assert len(set(numbers)) == len(set(verdicts))


def test_discarding_what_is_not_there_is_no_error() -> None:
    fib = Fib([Delegation(Match("eth0", P8), DROP)])
    fib.discard(Match("eth1", P8))
    fib.discard(Match("eth0", P16))
    assert [d.match for d in fib] == [Match("eth0", P8)]
    fib.discard(Match("eth0", P8))
    assert len(fib) == 0


def test_a_next_hop_that_moves_takes_its_delegations_along() -> None:
    old, new = Forward("eth1", 1), Forward("eth1", 2)
    fib = Fib([Delegation(Match("eth0", P8), old), Delegation(Match("eth0", P16), old), Delegation(Match("eth1", P8), DROP)])
    fib.move_nexthop(fib.number(old), new)
    assert {d.match: d.verdict for d in fib} == {Match("eth0", P8): new, Match("eth0", P16): new, Match("eth1", P8): DROP}
    fib.set(Match("eth1", P16), old)
    assert fib.get(Match("eth1", P16)) == old, "the old next hop may come back, under a number of its own"
    assert fib.get(Match("eth0", P8)) == new


@pytest.mark.parametrize("version", [IPV4, IPV6])
@pytest.mark.parametrize("length", [0, 1, 31, 32])
def test_keys_and_masks(version: int, length: int) -> None:
    bits = 32 if version == IPV4 else 128
    assert mask(version, length) == ((1 << bits) - 1) ^ ((1 << (bits - length)) - 1)
    prefix = Prefix(version, mask(version, length), length)
    assert prefix_of(version, key_of(prefix)) == prefix


def test_keys_in_order_put_a_prefix_before_what_it_covers() -> None:
    texts = ["10.0.1.0/24", "10.0.0.0/8", "10.0.0.0/16", "9.0.0.0/8", "10.0.0.0/32"]
    ordered = [str(prefix_of(IPV4, key)) for key in sorted(key_of(Prefix.parse(t)) for t in texts)]
    assert ordered == ["9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.0/32", "10.0.1.0/24"]


def test_lengths_are_those_present_longest_first() -> None:
    assert lengths({key_of(P8): 1, key_of(P16): 1, key_of(Prefix.parse("11.0.0.0/8")): 2}) == [16, 8]
