"""The same packets sent in both worlds: who gets what, which routers see them, and how Open vSwitch explains it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.soak import probes, words
from tests.soak.judge import BYPASSED, ROUTED, Sent, describe
from tests.soak.pause import Pause
from tests.soak.plan import HOSTS, MANAGED, PORTS
from tests.soak.probes import CHATTER_EVERY_S
from tests.soak.walk import walk
from tests.soak.wire import NOBODYS_VLAN, Probe, mac_text
from tests.waiting import waited_for
from topologies.processes import LabError

if TYPE_CHECKING:
    from tests.soak.harness import Soak

ARRIVAL_S, LEARNED_S = 1.5, 1.3
AGAIN_S = 1.0
MOST_SHOWN = 12
BRIDGE_COLUMNS = "--columns=name,fail_mode,controller,flood_vlans,other_config"
PATCH_COLUMNS = "--columns=name,type,ofport,link_state,error,options"


class Deliveries:
    """`spoofs`: probes with addresses of routers as sources are among those of a pause.

    `passing`: what was wrong with single packets once, and was not when they were sent again.
    """

    def __init__(self, soak: Soak) -> None:
        self._soak = soak
        self.spoofs = False
        self.compared = 0
        self.passing: list[str] = []
        self.suspects: list[Sent] = []
        self._cached: list[str] = []

    def problems(self, pause: Pause) -> list[str]:
        """What differs between the worlds, and from what REST says."""
        self._let_learn()
        sents = self._send_all(probes.of_a_pause(self._soak.rng, self.spoofs))
        found: list[str] = []
        for n, sent in enumerate(sents):
            wrong, harmless = self._wrong(sent, pause), self._harmless(sent, pause)
            cached = self._all_cached() if wrong or harmless else []
            if harmless and not (wrong and sent.received(BYPASSED)):  # what nobody got has not been bypassed
                time.sleep(AGAIN_S)
                self._drop_cached()
                (sents[n],) = self._send_all([sent.probe])
                wrong = self._wrong(sents[n], pause) + self._harmless(sents[n], pause)
                self.passing += [] if wrong else harmless
            if wrong:
                self._suspect(sents[n], cached)
            found += wrong
        return found[:MOST_SHOWN] + (words.flows(self._soak, sents, pause.installed)[:MOST_SHOWN] if pause.controller else [])

    def _all_cached(self) -> list[str]:
        return _asked(self._soak.switch.appctl, "dpctl/dump-flows")

    def _drop_cached(self) -> None:
        """Open vSwitch 3.1.0's userspace datapath may keep the old actions of a cached flow for as long as packets use it.

        Where two cached flows overlap, it looks for the one to be changed by a packet and not by its id, and changes the
        other (docs/limits.md). So whether a packet is treated wrongly is decided once the cache is empty.
        """
        with suppress(LabError):  # it does not run just now
            self._soak.switch.appctl("revalidator/purge")

    def _let_learn(self) -> None:
        """Wait until the bridges know everybody: stations speak often, but cached flows teach a bridge twice a second only."""
        time.sleep(max(CHATTER_EVERY_S + 0.1, self._soak.judge.last_excuse + LEARNED_S - time.monotonic()))

    def _send_all(self, drawn: list[Probe]) -> list[Sent]:
        sents = [self.send(probe) for probe in drawn]
        also = [s for s in sents if s.probe.vlan != NOBODYS_VLAN]
        waited_for(lambda: all(s.received(BYPASSED) == s.received(ROUTED) for s in also), ARRIVAL_S)
        time.sleep(0.05)  # for what should not arrive
        self.compared += len(sents)
        return sents

    def send(self, probe: Probe) -> Sent:
        sent = self._soak.judge.sent(probe)
        for world in (self._soak.bypassed, self._soak.routed):
            world.hosts.send(probe.sender, sent.probe.frame())
        time.sleep(0.001)
        return sent

    # --- what is wrong ------------------------------------------------------------------------------------

    def _wrong(self, sent: Sent, pause: Pause) -> list[str]:
        """Past a router that has withdrawn."""
        there = sent.routers[ROUTED] - sent.routers[BYPASSED]
        unseen = sorted(p for p in there if PORTS[p].station in pause.left)
        is_wrong = unseen and sent.probe.is_plain
        return [f"still bypassed, {unseen} did not see {short(sent.probe)}"] if is_wrong else []

    def _harmless(self, sent: Sent, pause: Pause) -> list[str]:
        """Lost in one world, or by way of the routers although they have delegated it: once, this may be chance.

        What has come to somebody who should not have it is found by the judge too, without a second try.
        """
        outcome = walk(self._soak.tables, sent.probe)
        bypassed, routed = sent.received(BYPASSED), sent.received(ROUTED)
        lost = Counter[tuple[str, bytes]]() if sent.probe.vlan == NOBODYS_VLAN else routed - bypassed
        found = [f"lost at {_words(heard, sent)}" for heard in lost.elements() if _is_meant_for(*heard)]
        found += [f"too much at {_words(h, sent)}" for h in (bypassed - routed).elements() if not _at_home(h, sent)]
        if not pause.bypassed:
            return found
        if outcome.receiver is not None and (outcome.receiver, outcome.frames[-1][1]) not in routed:
            found.append(f"the routed world does not do what its kernels' tables say: {short(sent.probe)}")
        is_delegated = sent.probe.is_plain and outcome.routers and not outcome.asked and not outcome.left
        if is_delegated and sent.routers[BYPASSED]:
            found.append(f"not bypassed, {sorted(sent.routers[BYPASSED])} saw {short(sent.probe)}")
        return found

    # --- for people ---------------------------------------------------------------------------------------

    def _suspect(self, sent: Sent, cached: list[str]) -> None:
        """`cached`: what the datapath held when the packet went wrong first."""
        self.suspects.append(sent)
        self._cached = self._cached or cached

    def explained(self, most: int = 2) -> list[str]:
        """What Open vSwitch says in both worlds of the first packets that were not delivered as they should."""
        lines = []
        for sent in self.suspects[:most]:
            host, eth = HOSTS[sent.probe.sender], f"src={sent.probe.eth_src},dst={sent.probe.eth_dst}"
            for name, world in ((BYPASSED, self._soak.bypassed), (ROUTED, self._soak.routed)):
                heard = sorted({station for station, _ in sent.heard[name]})
                lines.append(f"{name}: {short(sent.probe)}: heard by {heard}, {sorted(sent.routers[name])}; traced now:")
                port, raw = f"in_port={host.name}", sent.probe.frame().hex()
                lines += _asked(world.switch.appctl, "ofproto/trace", host.bridge, port, raw)
            lines += ["cached for it:", *(line for line in self._cached if eth in line)]
        if self.suspects:
            lines += self._bridges()
        return [
            *lines,
            "patch ports:",
            *_asked(self._soak.switch.ctl, PATCH_COLUMNS, "-f", "csv", "find", "interface", "type=patch"),
        ]

    def _bridges(self) -> list[str]:
        """What the bridges hold now: rules, stations, settings; and what was cached when the first packet went wrong."""
        switch, lines = self._soak.switch, list[str]()
        for bridge in MANAGED:
            lines += [f"{bridge}: rules, stations, row:", *_asked(switch.ofctl, "dump-flows", bridge)]
            lines += [*_asked(switch.appctl, "fdb/show", bridge), *_asked(switch.ctl, BRIDGE_COLUMNS, "list", "bridge", bridge)]
        return [*lines, "cached:", *self._cached]


def _asked(tool: Callable[..., str], *args: str) -> list[str]:
    """The lines of an answer, or why there is none."""
    try:
        return tool(*args).splitlines()
    except LabError as e:
        return [str(e)]


def _words(heard: tuple[str, bytes], sent: Sent) -> str:
    station, raw = heard
    return f"{station}: {describe(raw)} of {short(sent.probe)}"


def _at_home(heard: tuple[str, bytes], sent: Sent) -> bool:
    """A frame in nobody's VLAN on its sender's own bridge: where the adversary says NORMAL, it is flooded there."""
    return sent.probe.vlan == NOBODYS_VLAN and HOSTS[heard[0]].bridge == HOSTS[sent.probe.sender].bridge


def _is_meant_for(station: str, raw: bytes) -> bool:
    """Whether a frame is addressed to whom it came to. What was only flooded there is not missed."""
    return bool(raw[0] & 1) or mac_text(raw[:6]) == HOSTS[station].mac


def short(probe: Probe) -> str:
    extra = [f"ttl {probe.ttl}"] if probe.ttl != 64 else []
    extra += [f"{probe.size} bytes"] if probe.size != 100 else []
    extra += ["first fragment"] if probe.more else ["later fragment"] if probe.offset else []
    extra += [f"vlan {probe.vlan}"] if probe.vlan is not None else []
    return " ".join([f"{probe.sender}: {probe.src} > {probe.dst} by {probe.eth_dst}", *extra])
