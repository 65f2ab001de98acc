"""The nodes of one IP version: where a walk can stand, and from where it can get there.

A *node* is a router interface and, where that interface has delegations for particular senders, one of these eth_src
values (None: any other).
"""

from __future__ import annotations

from collections.abc import Set

from fsctl.collapse.node import NOTHING, Node
from fsctl.model.addresses import BITS
from fsctl.model.network import Interface, Network

_MOST_SETS = 1024
"""How many sets of nodes `Nodes.upstream` remembers: a router can make as many as it has prefixes."""


def entered(network: Network, out: Interface, eth_dst: int) -> Interface | None:
    """The router interface that a walk comes to when it leaves by `out` to this MAC; None if it ends there."""
    into = network.by_mac.get((out.bridge, eth_dst))
    return into if out.up and into is not None and into.up else None


class Nodes:
    """All nodes of one IP version, and which of them lead to which."""

    def __init__(self, network: Network, version: int) -> None:
        self.network, self.version = network, version
        self.nodes: list[Node] = []
        self.node_of: dict[tuple[str, str, int | None], Node] = {}
        self.most_classes = 0
        """The most classes of senders that an interface has ever had."""
        self.turns = 0
        """Counts what may make walks longer: new nodes, and new steps from one to another."""
        self.reviewed: object = None
        """What `cuts` has looked at last."""
        self._of_router: dict[str, list[Node]] = {name: [] for name in network.routers}
        self._idle: dict[Node, list[Node]] = {}
        self._preds: list[set[int]] = []
        self._upstream: dict[frozenset[int], tuple[Node, ...]] = {}
        self._make_nodes()

    def _make_nodes(self) -> None:
        for interface in self.network.interfaces():
            self._add_node(interface, None)
        for router, fib in self.network.fibs.items():
            for in_port, version, eth_src in fib.parts:
                if version == self.version:
                    self.ensure_node(router, in_port, eth_src)
            self.refresh(router)

    def _add_node(self, interface: Interface, eth_src: int | None) -> Node:
        own = self.network.own_addresses[interface.router]
        local = frozenset(value << 8 | BITS[self.version] for version, value in own if version == self.version)
        node = Node(len(self.nodes), self.version, interface, eth_src, local)
        node.has_senders = eth_src is None or self._can_send(interface.bridge, eth_src)
        self.nodes.append(node)
        self._of_router[interface.router].append(node)
        self._preds.append(set())
        self.node_of[interface.router, interface.name, eth_src] = node
        return node

    def _can_send(self, bridge: str, eth_src: int) -> bool:
        """Whether the guard lets any packet with this eth_src in; a router's MAC may come from its own port only."""
        owner = self.network.by_mac.get((bridge, eth_src))
        if owner is None:
            return True
        return owner.ofport is not None and owner.ofport not in self.network.bridges[bridge].exempt_ports

    def ensure_node(self, router: str, in_port: str, eth_src: int | None) -> Node:
        """The node of a sender class; made with its first delegation."""
        node = self.node_of.get((router, in_port, eth_src))
        if node is None:
            base = self.node_of[router, in_port, None]
            assert eth_src is not None
            node = self._reuse(base, eth_src)
            if node is None:
                node = self._add_node(base.interface, eth_src)
                node.is_cut = base.is_cut
                base.classes.append(node)
                self.most_classes = max(self.most_classes, len(base.classes))
                node.base = base
                # The steps that led to the interface may lead to the class: it starts with the predecessors of its base.
                self._preds[node.index] = set(self._preds[base.index])
            self._upstream.clear()
            self.turns += 1
            self._turn(base.interface.bridge, eth_src)
        return node

    def _reuse(self, base: Node, eth_src: int) -> Node | None:
        """A node whose class has had no delegation since an earlier update, for another class: nodes stay as many as are used."""
        idle, parts = self._idle.get(base, []), self.network.fibs[base.interface.router].parts
        while idle:
            node = idle.pop()
            if node.rules or (base.interface.name, self.version, node.eth_src) in parts:
                continue
            assert node.eth_src is not None
            del self.node_of[base.interface.router, base.interface.name, node.eth_src]
            self._turn(base.interface.bridge, node.eth_src)
            node.eth_src = eth_src
            node.has_senders = self._can_send(base.interface.bridge, eth_src)
            self.node_of[base.interface.router, base.interface.name, eth_src] = node
            self._preds[node.index] |= self._preds[base.index]
            return node
        return None

    def _turn(self, bridge: str, eth_src: int) -> None:
        """A class of these senders is new or gone: what a router rewrites to this MAC goes to another node now."""
        sender = self.network.by_mac.get((bridge, eth_src))
        if sender is not None:
            for node in self._of_router[sender.router]:
                node.steps.clear()

    def refresh(self, router: str) -> None:
        """Follow the parts of a FIB that were added or removed."""
        parts = self.network.fibs[router].parts
        for node in self._of_router[router]:
            node.any = parts.get((node.interface.name, self.version, None), NOTHING)
            if node is node.base:
                self._idle[node] = []
            else:
                node.own = parts.get((node.interface.name, self.version, node.eth_src), NOTHING)
                if node.own is NOTHING:
                    self._idle[node.base].append(node)
            node.held |= node.any is not NOTHING or node.own is not NOTHING

    def cut(self, places: Set[tuple[str, str, int]]) -> list[Node]:
        """Let these interfaces' walks end behind their router, and no others; returns the base nodes that have changed."""
        changed = []
        for node in self.nodes:
            here = node.interface
            is_cut = (here.router, here.name, self.version) in places
            if node.is_cut != is_cut:
                node.is_cut = is_cut
                changed += [node] if node is node.base else []
        return changed

    def _link(self, node: Node, target: Node) -> None:
        """A walk can go from one node to another."""
        if node.index not in self._preds[target.index]:
            self._preds[target.index].add(node.index)
            self._upstream.clear()
            self.turns += 1

    def upstream(self, indexes: frozenset[int]) -> tuple[Node, ...]:
        """The nodes whose walks can pass one of these (and these)."""
        known = self._upstream.get(indexes)
        if known is None:
            seen, todo = set(indexes), list(indexes)
            while todo:
                for pred in self._preds[todo.pop()]:
                    if pred not in seen:
                        seen.add(pred)
                        todo.append(pred)
            if len(self._upstream) >= _MOST_SETS:
                self._upstream.clear()
            known = self._upstream[indexes] = tuple(self.nodes[i] for i in sorted(seen))
        return known
