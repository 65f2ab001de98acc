"""The fold: kernel events in, the router's FIB out. Pure; no I/O, no clock.

Every prefix that the kernel has a route for, and every neighbour on a connected subnet, has a decision
(`decide`). What is emitted may differ per ingress interface: a packet is not sent back out where it came in
while the router would answer with a redirect, and a hole is only said where a forward covers it.

`settle` recomputes what the events since the last call can have changed; a new Fold over the same state
recomputes everything, and is the truth that tests hold `settle` against.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from fsctl.agent.decide import Decider, Decision, Direct, Gateway, Hole, Policy, parent_of, usable_interfaces
from fsctl.agent.events import Event, NeighKey, Route, Value
from fsctl.agent.rib import Sorted
from fsctl.agent.state import VERSIONS, Place, State
from fsctl.model.addresses import BITS, IPV4
from fsctl.model.delegations import PUNT, Delegation, Forward, Verdict
from fsctl.model.fib import Change, PartKey, match_of_change
from fsctl.model.prefix_keys import Key


class Fold:
    """`interfaces` maps MAC addresses to fsctl's names of this router's interfaces."""

    def __init__(
        self, interfaces: Mapping[int, str] | None = None, policy: Policy | None = None, state: State | None = None
    ) -> None:
        self.state = state or State()
        self.fib: dict[PartKey, dict[Key, Verdict]] = {}
        self._interfaces = dict(interfaces or {})
        self.state.watched = self._interfaces.keys()
        self._decider = Decider(self.state)
        self._decider.policy = policy or Policy()
        self._decisions: dict[int, dict[Key, Decision]] = {v: {} for v in VERSIONS}
        self._order = {v: Sorted() for v in VERSIONS}
        self._counts: dict[int, Counter[int]] = {v: Counter() for v in VERSIONS}
        self._lengths: dict[int, list[int]] = {v: [] for v in VERSIONS}
        self._dirty: set[Place] = set()
        self._all_dirty = True

    # -- input ----------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Take one event in. Nothing is recomputed before `settle`."""
        self._mark(self.state.apply(event))

    def resync(self, kind: type[Value], values: Iterable[Value], version: int = IPV4) -> None:
        """All the values of one kind (routes: of one IP version), as a dump has them: mark and sweep."""
        if kind is Route:
            self._mark(self.state.replace_routes(version, (v for v in values if isinstance(v, Route))))
            return
        fresh = set(values)
        for old in self.state.missing(kind, fresh):
            self.apply(Event(old, gone=True))
        for new in fresh:
            self.apply(Event(new))

    def configure(self, interfaces: Mapping[int, str] | None = None, policy: Policy | None = None) -> None:
        """Other interfaces known to fsctl, another policy."""
        if interfaces is not None and dict(interfaces) != self._interfaces:
            self._interfaces, self._all_dirty = dict(interfaces), True
            self.state.watched = self._interfaces.keys()
        if policy is not None and policy != self._decider.policy:
            self._decider.policy, self._all_dirty = policy, True

    def leave(self, unkept: frozenset[NeighKey]) -> None:
        """These neighbours are not kept alive: none of them is delegated to once its entry is stale."""
        if unkept != self.state.unkept:
            self._mark(self.state.leave(unkept))

    def wants_resync(self) -> bool:
        """Has anything happened that messages alone do not tell exactly (hazard 23)?"""
        return self.state.is_doubtful or any(rib.uncertain for rib in self.state.ribs.values())

    def resynced(self) -> None:
        """A whole dump was taken in."""
        self.state.is_doubtful = False
        self._all_dirty |= bool(self.state.suspects)
        self.state.suspects.clear()
        for version, rib in self.state.ribs.items():
            self._dirty.update((version, key) for key in rib.doubtful)
            rib.trust()

    def _mark(self, changed: Iterable[Place | NeighKey | int] | None) -> None:
        if changed is None:
            self._all_dirty = True
            return
        for what in changed:
            if isinstance(what, (NeighKey, int)):
                self._dirty.update(self._decider.users.get(what, ()))
            else:
                self._dirty.add(what)

    # -- output ---------------------------------------------------------------------------------

    def delegations(self) -> Iterator[Delegation]:
        """The FIB, as the model's values."""
        for part, entries in self.fib.items():
            for key, verdict in entries.items():
                yield Delegation(match_of_change(part, key), verdict)

    def __len__(self) -> int:
        return sum(map(len, self.fib.values()))

    def gateways(self) -> set[NeighKey]:
        """The next hops that routes in force lead to, resolved or not."""
        return {need.neigh for need in self._decider.users if isinstance(need, Gateway)}

    def has_new_gateways(self) -> bool:
        """Has there come one since the last call?"""
        found, self._decider.has_new_gateways = self._decider.has_new_gateways, False
        return found

    def hosts(self) -> set[NeighKey]:
        """The neighbours that are delegated one by one: on connected subnets, or by a route of their own."""
        names = {name: index for index, name in self._decider.names.items()}
        users = self._decider.users
        return {need for need in users if isinstance(need, NeighKey) and Gateway(need) not in users} | {
            NeighKey(names[decision.out], version, place_key >> 8)
            for version in VERSIONS
            for place_key in self._host_keys(version)
            if isinstance(decision := self._decisions[version].get(place_key), Forward)
        }

    def _host_keys(self, version: int) -> Iterator[Key]:
        rib = self.state.ribs[version]
        return (key for v, key in self.state.hosts if v == version and key not in rib)

    def names(self) -> Mapping[int, str]:
        """Interface index -> fsctl's name, of the interfaces that can be used now."""
        return self._decider.names

    def decision(self, version: int, address: int) -> Decision | None:
        """What was decided for one destination: the decision at the longest prefix that covers it."""
        decisions = self._decisions[version]
        key: Key | None = address << 8 | BITS[version]
        if key not in decisions:
            key = parent_of(version, address << 8 | BITS[version], decisions, self._lengths[version])
        return None if key is None else decisions[key]

    def holes(self) -> Counter[str]:
        """How many prefixes are left to the router, by reason."""
        return Counter(d.reason for at in self._decisions.values() for d in at.values() if isinstance(d, Hole))

    # -- recomputation --------------------------------------------------------------------------

    def settle(self) -> list[Change]:
        """Bring `fib` up to date; what changed in it."""
        everything = self._all_dirty
        if everything:
            self._all_dirty = False
            self._decider.names = usable_interfaces(self.state, self._interfaces)
            self._dirty = self._all_places()
        changed = self._redecide()
        if everything:
            changed |= self._all_places()
        ingresses = {v: self._ingresses(v) for v in VERSIONS}
        gone = [part for part in self.fib if part[0] not in ingresses[part[1]].values()]
        changes = [Change(part, key, None) for part in gone for key in self.fib.pop(part)]
        for version, key in changed:
            for index, name in ingresses[version].items():
                verdict = self._emit(version, key, index, name)
                part = (name, version, None)
                entries = self.fib.setdefault(part, {})
                if verdict is None:
                    if entries.pop(key, None) is not None:
                        changes.append(Change(part, key, None))
                elif entries.get(key) != verdict:
                    entries[key] = verdict
                    changes.append(Change(part, key, verdict))
        return changes

    def _all_places(self) -> set[Place]:
        places = {(v, key) for v in VERSIONS for key in self.state.ribs[v]}
        places.update((v, key) for v in VERSIONS for key in self._decisions[v])
        return places | self.state.own.keys() | self.state.hosts.keys()

    def _redecide(self) -> set[Place]:
        """Decide the dirty places anew: routes first, then the hosts around which routes changed."""
        hosts, touched = set[Place](), dict[Place, bool]()
        dirty, self._dirty = self._dirty, set()
        for place in dirty:
            version, key = place
            if self._is_host(place):
                hosts.add(place)
                continue
            old, new = self._decisions[version].get(key), self._decider.decide_route(place)
            self._store(place, old, new, touched)
            if old != new and not (isinstance(old, Forward) and isinstance(new, Forward)):
                hosts.update((version, k) for k in self.state.host_order[version].inside(version, key))
        for place in hosts:
            self._redecide_host(place, touched)
        found = set(touched)
        for (version, key), flipped in touched.items():
            if flipped and key & 0xFF < BITS[version]:
                found.update((version, k) for k in self._order[version].inside(version, key))
        return found

    def _is_host(self, place: Place) -> bool:
        """One address without a route of its own."""
        version, key = place
        return key & 0xFF == BITS[version] and key not in self.state.ribs[version] and place not in self.state.own

    def _redecide_host(self, place: Place, touched: dict[Place, bool]) -> None:
        version, key = place
        if not self._is_host(place):
            return
        decisions = self._decisions[version]
        self._decider.forget(place)
        new = self._decider.decide_host(place, decisions, self._lengths[version])
        self._store(place, decisions.get(key), new, touched)

    def _store(self, place: Place, old: Decision | None, new: Decision | None, touched: dict[Place, bool]) -> None:
        """Remember a decision, and whether what is inside the place must be looked at again."""
        if old == new:
            return
        version, key = place
        length = key & 0xFF
        if new is None:
            del self._decisions[version][key]
            self._order[version].discard(key)
        else:
            self._decisions[version][key] = new
            self._order[version].add(key)
        if (old is None) != (new is None):
            counts = self._counts[version]
            counts[length] += -1 if new is None else 1
            if counts[length] <= 1:
                self._lengths[version] = sorted((n for n, count in counts.items() if count), reverse=True)
        same_way = isinstance(old, Forward) and isinstance(new, Forward) and old.out == new.out
        touched[place] = not same_way

    def _ingresses(self, version: int) -> dict[int, str]:
        refused = self._decider.policy.no_ingress
        return {i: name for i, name in self._decider.names.items() if (i, version) not in refused}

    def _forwards(self, decision: Decision, version: int, index: int, name: str) -> bool:
        """May packets that came in by `index` be forwarded so?"""
        if not isinstance(decision, Forward):
            return False
        return decision.out != name or (index, version) not in self._decider.policy.no_hairpin

    def _emit(self, version: int, key: Key, index: int, name: str) -> Verdict | None:
        """What is said about a place to packets that come in by one interface, if anything."""
        decisions = self._decisions[version]
        decision = decisions.get(key)
        if decision is None:
            return None
        if isinstance(decision, Forward) and self._forwards(decision, version, index, name):
            return decision
        parent = parent_of(version, key, decisions, self._lengths[version])
        covered = parent is not None and self._forwards(decisions[parent], version, index, name)
        return PUNT if covered else None


__all__ = ["Direct", "Fold", "Hole", "Policy"]
