"""Law: the order in which routers delegate, and in which they are named, changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from fsctl.model.network import Network
from tests.properties.laws import all_resolved, compiled, delegations_of, law, with_fibs
from tests.strategies import Draw, a_network

T = TypeVar("T")


def shuffled(draw: Draw, items: Sequence[T]) -> list[T]:
    """In any order; shrinks to the reverse."""
    rest = list(items)
    return [rest.pop(len(rest) - 1 - draw(len(rest))) for _ in items]


def other_order_of_delegations(draw: Draw) -> tuple[Network, Network]:
    network = a_network(draw)
    return network, with_fibs(network, {name: shuffled(draw, ds) for name, ds in delegations_of(network).items()})


def other_order_of_routers(draw: Draw) -> tuple[Network, Network]:
    network = a_network(draw)
    names = shuffled(draw, sorted(network.routers))
    return network, replace(network, routers={n: network.routers[n] for n in names}, fibs={n: network.fibs[n] for n in names})


@law(other_order_of_delegations)
def test_order_of_delegations_is_irrelevant(case: tuple[Network, Network]) -> None:
    one, other = case
    assert all_resolved(compiled(one)) == all_resolved(compiled(other))


@law(other_order_of_routers)
def test_order_of_routers_is_irrelevant(case: tuple[Network, Network]) -> None:
    one, other = case
    assert all_resolved(compiled(one)) == all_resolved(compiled(other))
