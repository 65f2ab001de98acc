"""Next hops that no delegation uses any more are forgotten: in memory, in the compiler, in the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fsctl.collapse.compiler import Compiler
from fsctl.model.addresses import IPV4, Prefix
from fsctl.model.delegations import Delegation, Forward, Match
from fsctl.model.fib import Fib, change_of
from fsctl.store import SqliteStore
from tests.properties.laws import carry_out, with_fibs
from tests.strategies import a_network, of_seed
from tests.unit.paper import Lab

FLOWS, TURNS = 500, 12
SPARE = 1024


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(store=SqliteStore(str(tmp_path / "fsctl.db")))
    yield lab
    lab.stop()


def hosts(turn: int) -> list[tuple[str, Forward]]:
    """The same hosts each time, each with a MAC of its own that was never used before."""
    return [(f"20.0.{n >> 8}.{n & 255}/32", Forward("eth1", 0x0200_0000_0000 + turn * FLOWS + n)) for n in range(FLOWS)]


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM nexthop").fetchone()[0])


def test_d12_ever_new_macs_leave_no_next_hops(lab: Lab, tmp_path: Path) -> None:
    for turn in range(TURNS):
        lab.write("r", *hosts(turn))
    lab.write("r", replace=True)
    lab.write("r", ("20.0.0.0/8", Forward("eth1", 0x0300)))
    fib = lab.controller.desired.fibs["r"]
    most = SPARE + 2 * FLOWS
    assert len(fib.nexthops) <= most
    assert max(fib.nexthops) > TURNS * FLOWS, "numbers are not used again"
    graph = lab.controller.now.compiler.graphs[IPV4]
    assert len(graph.node_of["r", "eth0", None].steps) <= most
    assert len(graph._effects) <= 2 * most
    assert len(graph._interned) <= 2 * most
    lab.stop()
    lab.store.close()
    assert rows(tmp_path / "fsctl.db") <= most
    stored = SqliteStore(str(tmp_path / "fsctl.db"))
    assert list(stored.load().fibs["r"]) == list(fib)
    stored.close()


def test_a_mac_that_was_freed_can_be_used_again(lab: Lab, tmp_path: Path) -> None:
    first = ("30.0.0.0/8", Forward("eth1", 0x0200_0000_0000))
    lab.write("r", first)
    for turn in range(1, 5):
        lab.write("r", ("30.0.0.0/8", Forward("eth1", 0x0300)), *hosts(turn))
    fib = lab.controller.desired.fibs["r"]
    assert not fib.has_nexthop(first[1])
    lab.write("r", first)
    assert fib.get(Match("eth0", Prefix.parse("30.0.0.0/8"))) == first[1]
    assert {str(f.delegation.match.dst) for f in lab.controller.flows("r")} >= {"30.0.0.0/8"}
    lab.check_in_step()


def test_next_hops_in_use_are_kept() -> None:
    fib = Fib([Delegation(Match("eth0", Prefix.host(IPV4, n)), Forward("eth1", n)) for n in range(1, SPARE + 10)])
    before = list(fib)
    assert fib.free_nexthops() == frozenset()
    assert list(fib) == before


@pytest.mark.parametrize("seed", range(10))
def test_d12_ever_new_senders_leave_no_nodes(seed: int) -> None:
    """A node of a class that has nothing left serves the next class, and the rules are as if compiled anew."""
    network = next(n for n in (a_network(of_seed(seed * 100 + k)) for k in range(100)) if len(n.routers) > 2)
    router = next(iter(network.routers))
    name = next(iter(network.routers[router].interfaces))
    compiler, wide = Compiler(network), Prefix.parse("0.0.0.0/0")
    most = len(compiler.graphs[IPV4].nodes) + 3
    macs = [i.mac for i in network.interfaces()] * 2 + list(range(0x0400, 0x0440))
    gone = None
    for mac in macs:
        match = Match(name, wide, eth_src=mac)
        if network.fibs[router].get(match) is not None:
            continue
        changes = [(router, change_of(match, Forward(name, 0x0500)))]
        changes += [] if gone is None else [(router, change_of(gone, None))]
        list(compiler.update(carry_out(network, changes)))
        gone = match
        fresh = Compiler(with_fibs(network, {r: list(fib) for r, fib in network.fibs.items()}))
        assert _rules(compiler) == _rules(fresh)
    assert len(compiler.graphs[IPV4].nodes) <= most


def _rules(compiler: Compiler) -> dict[object, object]:
    return {
        (node.interface.router, node.interface.name, node.version, node.eth_src, key): (
            effect.kind,
            effect.hops,
            effect.limit,
            effect.router,
            compiler.network.fibs[effect.router].nexthops[effect.nexthop] if effect.kind == "forward" else None,
        )
        for _, node in compiler.nodes()
        for key, effect in node.rules.items()
    }
