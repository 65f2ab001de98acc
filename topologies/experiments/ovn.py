"""The same network in OVN: logical routers with static routes, until ovn-controller has them in the bridge."""

from __future__ import annotations

import json
import statistics
import time
from contextlib import ExitStack
from typing import Any

from topologies.experiments import plots
from topologies.experiments.firstpacket import collapsed_track
from topologies.experiments.ovn_rig import OvnRig, prefix
from topologies.experiments.report import Report, Say, Settings, median_ratio
from topologies.experiments.rig import FIRST_PREFIX, OTHER_HOST_MAC, Rig, mac
from topologies.experiments.rig import prefix as prefix_text
from topologies.experiments.search.fibs import SENDER_MAC, Chain, make_chain
from topologies.experiments.wire import TTL, Namespace, Wire
from topologies.sandbox import Sandbox

ROUTERS = 4
LENGTHS = (1, 8, 16, 24, 31, 32, 64)
FEW = 100
BURST = 64


def run(settings: Settings, say: Say) -> Report:
    """Installation and one change beside fsctl's, then first packets over the chain's length."""
    prefix()  # says at once if OVN is not there
    report = Report("ovn", "OVN for the same network, beside fsctl")
    count = settings.scaled(10_000, 500)
    ours, theirs = _installations(report, count, settings.scaled(3, 1), say)
    report.add(f"OVN: {ROUTERS} x {count:,} routes active", statistics.median(theirs), "s")
    report.add(f"fsctl: {ROUTERS} x {count:,} delegations confirmed", statistics.median(ours), "s")
    report.at_least("OVN's time to fsctl's", median_ratio(theirs, ours), "x", 5, "median of ratios")
    _first_packets(report, settings, say)
    return report


def _installations(report: Report, count: int, repeats: int, say: Say) -> tuple[list[float], list[float]]:
    ours, theirs, our_change, their_change = [], [], [], []
    for number in range(repeats):
        say(f"fsctl, {number + 1} of {repeats}")
        with Rig(ROUTERS) as rig:
            ours.append(rig.put_all({k: json.dumps({"flows": rig.table(k, count)}).encode() for k in range(1, ROUTERS + 1)}))
            our_change += [_our_change(rig, n) for n in range(20)]
        say(f"OVN, {number + 1} of {repeats}")
        with OvnRig(ROUTERS) as ovn:
            start = time.monotonic()
            for k in range(1, ROUTERS + 1):
                ovn.northbound.add_routes(f"lr{k}", [(prefix_text(n), ovn.next_hop(k)) for n in range(count)])
            ovn.sync()
            theirs.append(time.monotonic() - start)
            their_change += [_their_change(ovn, count + n) for n in range(5)]
    report.samples |= {"fsctl_s": ours, "ovn_s": theirs, "fsctl_change_s": our_change, "ovn_change_s": their_change}
    report.add("fsctl: one delegation changed", statistics.median(our_change) * 1e3, "ms")
    report.add("OVN: one route more", statistics.median(their_change) * 1e3, "ms")
    return ours, theirs


def _our_change(rig: Rig, number: int) -> float:
    body = json.dumps({"add": [rig.flow(number % ROUTERS + 1, prefix_text(number), OTHER_HOST_MAC)]}).encode()
    start = time.monotonic()
    rig.connection.request("PATCH", f"/v1/routers/r{number % ROUTERS + 1}/flows", body)
    return time.monotonic() - start


def _their_change(ovn: OvnRig, number: int) -> float:
    start = time.monotonic()
    ovn.northbound.add_routes("lr1", [(prefix_text(number), ovn.next_hop(1))])
    ovn.sync()
    return time.monotonic() - start


# First packets


def _first_packets(report: Report, settings: Settings, say: Say) -> None:
    """Bursts of first packets, each to a prefix of its own; 0 where they do not arrive."""
    lengths = (1, 8, 32) if settings.quick else LENGTHS
    found: dict[str, list[dict[str, Any]]] = {"fsctl": [], "OVN": []}
    for routers in lengths:
        say(f"first packets through {routers} routers")
        found["OVN"].append({"routers": routers} | _of_ovn(routers, settings.scaled(15, 5)))
        found["fsctl"].append({"routers": routers} | _of_fsctl(make_chain(routers, FEW), settings.scaled(15, 5)))
        for name, samples in found.items():
            last = samples[-1]
            if last["arrive"]:
                note = f"{last['flows']:,} OpenFlow rules"
                report.add(f"{name}: first packets in a burst, {routers} routers", last["first_us"], "us each", note)
            else:
                report.add(f"{name}: packets that arrive, {routers} routers", 0, "", "over Open vSwitch's resubmit limit")
    report.samples["first_packets"] = found
    lines = [
        plots.Line(name, [s["routers"] for s in samples if s["arrive"]], [s["first_us"] for s in samples if s["arrive"]])
        for name, samples in found.items()
    ]
    panel = plots.Panel("routers in the chain", "first packet in a burst, us each", lines)
    report.plots.append(plots.draw(settings.out / "ovn-firstpacket.png", "First packets: OVN and fsctl", [panel]))


def _of_ovn(routers: int, rounds: int) -> dict[str, Any]:
    with OvnRig(routers) as ovn:
        for k in range(1, routers + 1):
            ovn.northbound.add_routes(f"lr{k}", [(prefix_text(n), ovn.next_hop(k)) for n in range(FEW)])
        ovn.sync()
        destinations = [FIRST_PREFIX + (n << 8) + 1 for n in range(BURST)]
        entry = int(mac(1, 0).replace(":", ""), 16)
        return {"flows": ovn.flow_count()} | _bursts(ovn.wire, entry, destinations, routers, rounds)


def _of_fsctl(chain: Chain, rounds: int) -> dict[str, Any]:
    with ExitStack() as stack:
        space = stack.enter_context(Namespace())
        ovs = Sandbox(space.inside)
        stack.callback(ovs.stop)
        ovs.start()
        track = stack.enter_context(collapsed_track(space, ovs, chain))
        destinations = [value | 1 for value, length in chain.prefixes if length < 32][:BURST]
        return {"flows": track.rules} | _bursts(track.wire, chain.entry_mac, destinations, chain.routers, rounds)


def _bursts(wire: Wire, entry: int, destinations: list[int], routers: int, rounds: int) -> dict[str, Any]:
    """One packet first: does it arrive, with the right TTL?"""
    probe = wire.one(entry, SENDER_MAC, destinations[0]) or wire.one(entry, SENDER_MAC, destinations[0])
    if probe is None or probe[1].ttl != TTL - routers:
        return {"arrive": False, "first_us": 0.0}
    taken = []
    for _ in range(rounds):
        wire.forget()
        took = wire.burst(entry, SENDER_MAC, destinations)
        if took is not None:
            taken.append(took * 1e6 / len(destinations))
    return {"arrive": True, "first_us": statistics.median(taken) if taken else 0.0}
