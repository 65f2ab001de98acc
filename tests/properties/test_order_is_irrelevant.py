"""Law: the order in which routers delegate, and in which they are named, changes nothing."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fsctl.model import Network
from tests.properties.laws import all_resolved, compiled, delegations_of, with_fibs
from tests.strategies import networks


@given(networks(), st.data())
def test_order_of_delegations_is_irrelevant(network: Network, data: st.DataObject) -> None:
    shuffled = {name: data.draw(st.permutations(ds)) for name, ds in delegations_of(network).items()}
    assert all_resolved(compiled(with_fibs(network, shuffled))) == all_resolved(compiled(network))


@given(networks(), st.data())
def test_order_of_routers_is_irrelevant(network: Network, data: st.DataObject) -> None:
    names = data.draw(st.permutations(sorted(network.routers)))
    renamed = replace(network, routers={n: network.routers[n] for n in names}, fibs={n: network.fibs[n] for n in names})
    assert all_resolved(compiled(renamed)) == all_resolved(compiled(network))
