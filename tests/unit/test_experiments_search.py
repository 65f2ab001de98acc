"""The flow tables of the comparison find the same entries, whatever was put in and taken out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies.experiments.search.cascade import Cascade
from topologies.experiments.search.fibs import HOSTS, interface_mac, make_chain
from topologies.experiments.search.tables import MASKS, METHODS, Entry

MACS = (1, 2)
SENDERS = (None, 7, 8)
LENGTHS = (0, 1, 8, 15, 16, 31, 32)
VALUES = (0, 0x0A000000, 0x0A800000, 0x0A000001, 0x0A00FFFF, 0x80000000, 0xFFFFFFFF)

entries = st.builds(
    lambda mac, value, length, src: Entry(mac, value & MASKS[length], length, src),
    st.sampled_from(MACS), st.sampled_from(VALUES), st.sampled_from(LENGTHS), st.sampled_from(SENDERS),
)  # fmt: skip
histories = st.lists(st.tuples(entries, st.one_of(st.none(), st.integers(0, 5))), max_size=40)
packets = st.tuples(st.sampled_from((*MACS, 3)), st.sampled_from((7, 8, 9)), st.sampled_from(VALUES))


def best(known: dict[Entry, int], eth_dst: int, eth_src: int, dst: int) -> int | None:
    """By the definition: of all entries that apply, the one with the longest prefix, then with a sender."""
    apply = [e for e in known if e.eth_dst == eth_dst and dst & MASKS[e.length] == e.value and e.eth_src in (None, eth_src)]
    return known[max(apply, key=Entry.precedence)] if apply else None


@pytest.mark.parametrize("method", METHODS)
@given(history=histories, asked=st.lists(packets, min_size=1, max_size=10))
def test_finds_what_the_definition_says(
    method: str, history: list[tuple[Entry, int | None]], asked: list[tuple[int, int, int]]
) -> None:
    table, known = METHODS[method](), dict[Entry, int]()
    for entry, verdict in history:
        if verdict is not None:
            table.insert(entry, verdict)
            known[entry] = verdict
        elif entry in known:
            table.remove(entry)
            del known[entry]
        # Asked in between too: what a cache remembers must not survive a change.
        for packet in asked:
            assert table.lookup(*packet) == best(known, *packet)


@pytest.mark.parametrize("method", METHODS)
def test_removing_what_is_not_there_is_an_error(method: str) -> None:
    table = METHODS[method]()
    for entry in (Entry(1, 0, 8), Entry(1, 0x0A000000, 8, 7), Entry(2, 0x0A000000, 8), Entry(1, 0x0A000000, 9)):
        table.insert(Entry(1, 0x0A000000, 8), 1)
        with pytest.raises(KeyError):
            table.remove(entry)


@pytest.mark.parametrize("method", METHODS)
def test_a_walk_passes_every_router_and_ends_at_the_host(method: str) -> None:
    chain = make_chain(5, 200)
    cascade = Cascade(chain, METHODS[method])
    expected = {dst: Cascade(chain, METHODS["linear list"]).walk(dst) for dst in chain.destinations(50)}
    for dst, end in expected.items():
        assert cascade.walk(dst) == end
        hops, eth_src, eth_dst = end
        assert (hops, eth_src) == (5, interface_mac(5, 1))
        assert eth_dst in HOSTS
    assert cascade.walk(1) == (0, cascade.walk(1)[1], chain.entry_mac)  # 0.0.0.1 is in no prefix


def test_probes_are_what_the_methods_promise() -> None:
    chain = make_chain(1, 500)
    probes = {}
    for method in METHODS:
        cascade = Cascade(chain, METHODS[method])
        cascade.walk(chain.destinations(1)[0])
        cascade.table.probes = 0
        hops, _, _ = cascade.walk(chain.destinations(1)[0])
        probes[method] = cascade.table.probes
        assert hops == 1
    lengths = len({length for _, length in chain.prefixes})
    assert probes["exact hash"] == 2  # the hit, and the miss that ends the walk
    assert probes["tuple-space search"] <= 2 * lengths
    assert probes["binary trie"] <= 33 + 33
    assert probes["linear list"] >= 500  # the miss that ends the walk sees the whole list


def test_a_chain_knows_different_prefixes_inside_its_range() -> None:
    chain = make_chain(2, 300)
    assert len(set(chain.prefixes)) == 300
    assert all(value & ~MASKS[length] & 0xFFFFFFFF == 0 and 16 <= value >> 24 <= 126 for value, length in chain.prefixes)
    for dst in chain.destinations(100):
        assert any(dst & MASKS[length] == value for value, length in chain.prefixes)
