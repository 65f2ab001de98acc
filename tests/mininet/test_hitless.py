"""Nothing is lost while the control plane works: updates and restarts under traffic."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from packets import forwarded, stream

from topologies.lab import Lab
from topologies.plan import RoutedTopo
from topologies.topos import Chain

BOTH = pytest.mark.parametrize("version", [4, 6])
OTHERS = 500


@pytest.fixture(scope="module")
def chain(start_lab: Callable[[RoutedTopo], Lab]) -> Lab:
    lab = start_lab(Chain(n=2))
    lab.delegate()
    return lab


def other_flows(lab: Lab, router: str, count: int) -> list[dict[str, Any]]:
    """Prefixes that this traffic does not use, some of them around those that it does."""
    out = lab.topo.stations[router].ports[1]
    peer = next(peer for port, peer, _ in lab.topo.neighbours(lab.topo.stations[router]) if port is out)
    verdict = {"action": "forward", "set": {"eth_dst": peer.mac}, "out": out.name}
    prefixes = ["0.0.0.0/0", "10.0.0.0/8", *(f"172.{16 + n // 256}.{n % 256}.0/24" for n in range(count))]
    return [{"match": {"in": "eth0", "ipv4_dst": prefix}, **verdict} for prefix in prefixes]


@BOTH
def test_update_under_traffic_loses_nothing(chain: Lab, version: int) -> None:
    chain.delegate()
    with stream(chain, "a", "b", version) as sent:
        time.sleep(0.5)
        for count in (OTHERS, 10):
            for router in ("r1", "r2"):
                flows = chain.topo.flows(chain.topo.stations[router])
                chain.put(router, flows + other_flows(chain, router, count))
        # From one rule to the slow path, router by router, and back.
        chain.withdraw()
        chain.delegate()
        time.sleep(0.5)
    assert sent.sent > 300
    assert sent.lost == []


@BOTH
def test_controller_restart_under_traffic_loses_nothing(chain: Lab, version: int) -> None:
    chain.delegate()
    assert chain.control is not None
    before = forwarded(chain, "r1"), forwarded(chain, "r2")
    with stream(chain, "a", "b", version) as sent:
        time.sleep(0.5)
        chain.control.stop()
        time.sleep(1.0)
        chain.control.start()
        time.sleep(1.0)
    assert sent.lost == []
    assert (forwarded(chain, "r1"), forwarded(chain, "r2")) == before, "the bypass was interrupted"
    flows = chain.control.client.flows("r1")
    assert {f["status"]["state"] for f in flows} == {"installed"}


def test_controller_killed_under_traffic_loses_nothing(chain: Lab) -> None:
    chain.delegate()
    assert chain.control is not None
    with stream(chain, "a", "b") as sent:
        chain.control.kill()
        time.sleep(1.0)
        chain.control.start()
        chain.withdraw()
        chain.delegate()
    assert sent.lost == []
