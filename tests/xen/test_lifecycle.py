"""Router domains destroyed, paused, rebooted, hot-plugged, replaced: their flows follow."""

from __future__ import annotations

import pytest

from topologies.labs.xen import lifecycle
from topologies.labs.xen.lab import XenLab

LEASE_S = 10.0
"""fsctl-agent's default."""


@pytest.fixture(autouse=True)
def bypassed(lab: XenLab) -> None:
    lab.bypass(True)


def test_provisioned_over_xenstore_alone(lab: XenLab) -> None:
    """No agent has a configuration file or environment: what it knows it has from vm-data/fsctl."""
    vr1 = lab.plan.routers[0]
    assert lab.on(vr1, "ls /etc/fsctl /etc/lab.env 2>/dev/null; cat /proc/cmdline").find("FSCTL") < 0
    keys = lab.station.run("xenstore-list /local/domain/$(xl domid vr1)/vm-data/fsctl").split()
    assert sorted(keys) == ["router", "token", "url"]
    assert lab.fsctl.bypassed_hops(1) == 1


def test_ports_are_found_by_what_xen_left_in_ovsdb(lab: XenLab) -> None:
    mac = lab.plan.routers[0].nics[0].mac
    found = lab.station.run("ovs-vsctl get interface vif$(xl domid vr1).0 external_ids:attached-mac external_ids:xen-vm-name")
    assert found.split() == [f'"{mac}"', "vr1"]


def test_destroyed(lab: XenLab) -> None:
    assert lifecycle.destroyed(lab).seconds < LEASE_S / 2


def test_paused(lab: XenLab) -> None:
    assert lifecycle.paused(lab).seconds <= LEASE_S * 2


def test_rebooted(lab: XenLab) -> None:
    lifecycle.rebooted(lab)


def test_hot_plugged(lab: XenLab) -> None:
    lifecycle.hot_plugged(lab)


def test_port_number_reused(lab: XenLab) -> None:
    lifecycle.port_number_reused(lab)
