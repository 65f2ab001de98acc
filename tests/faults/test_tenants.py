"""Everything that hostile tenants do, at once: what is no matter of time holds for the good one."""

from __future__ import annotations

import pytest

from topologies.experiments.hostile import KINDS
from topologies.experiments.rig import Rig
from topologies.experiments.tenants import MEMORY_MIB, Good
from topologies.sandbox import available

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not available(), reason="Open vSwitch is not installed")]
SECONDS = 6.0


@pytest.mark.timeout(120)
def test_a_good_tenant_among_hostile_ones() -> None:
    with Rig(3) as rig, Good(rig) as good:
        seen = good.during(list(KINDS), SECONDS)
        assert seen.kept, "its lease has ended although it was renewed"
        assert seen.writes_s, "each was confirmed and stored: `during` has looked"
        assert max(seen.memory_kib, seen.switch_kib) < MEMORY_MIB << 10
        assert good.flows() == good.expected
