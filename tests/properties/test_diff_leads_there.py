"""Law: apply(diff(a, b), b) = a, for the tables of any two networks, and nothing is left to do then."""

from __future__ import annotations

from fsctl.model.network import Network
from fsctl.openflow.rules import RuleTable
from fsctl.pipeline.diff import apply, diff
from tests.properties.laws import compiled, law
from tests.strategies import Draw, a_network


def two_networks(draw: Draw) -> tuple[Network, Network]:
    return a_network(draw), a_network(draw)


@law(two_networks)
def test_the_difference_applied_gives_what_is_desired(case: tuple[Network, Network]) -> None:
    one, other = case
    desired, installed = compiled(one), compiled(other)
    for bridge in desired.keys() | installed.keys():
        want, have = desired.get(bridge, RuleTable()), installed.get(bridge, RuleTable())
        after = apply(diff(want, have, bridge), have)
        assert after == want
        assert not diff(want, after, bridge)


@law(two_networks)
def test_the_difference_names_only_what_differs(case: tuple[Network, Network]) -> None:
    one, other = case
    desired, installed = compiled(one), compiled(other)
    for bridge in desired.keys() & installed.keys():
        want, have = desired[bridge].rules, installed[bridge].rules
        changes = diff(desired[bridge], installed[bridge], bridge).changes
        touched = {change.key for change in changes}
        assert touched == {k for k in want.keys() | have.keys() if want.get(k) != have.get(k)}
