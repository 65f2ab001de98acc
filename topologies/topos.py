"""The networks that fsctl is shown and tested on. Each has a test of the same name in tests/mininet."""

from __future__ import annotations

from topologies.plan import DEFAULT_MTU, RoutedTopo


class Figure2(RoutedTopo):
    """The paper's figure 2: one virtual router, every packet goes into the guest and comes out again.

    ::

                     +----r1----+
                     | eth0 eth1|
        A --- [ bridge 0 ]  [ bridge 1 ] --- B
          10.0.0.0/24         10.0.1.0/24

    Figure 3 is the same network after r1 has delegated: the packets pass from bridge 0 to bridge 1 beside it.
    """

    def build(self) -> None:
        left, right = self.bridge("b0"), self.bridge("b1")
        self.host("a", left, 0)
        self.host("b", right, 1)
        self.router("r1", (left, 0, 2), (right, 1, 1))


class Chain(RoutedTopo):
    """A chain of `n` routers; `mtu` is that of the last segment: of rn's egress interface and of B.

    ::

        A --- [b0] --- r1 --- [b1] --- r2 --- [b2] ... rn --- [bn] --- B
               0               1               2               n
    """

    def build(self, n: int = 1, mtu: int = DEFAULT_MTU) -> None:
        bridges = [self.bridge(f"b{k}") for k in range(n + 1)]
        self.host("a", bridges[0], 0)
        self.host("b", bridges[n], n, mtu=mtu)
        for k in range(1, n + 1):
            self.router(f"r{k}", (bridges[k - 1], k - 1, 2), (bridges[k], k, 1), mtu=mtu if k == n else DEFAULT_MTU)


class Stick(RoutedTopo):
    """A router on a stick: both networks on one bridge, one interface of the router with an address in each.

    ::

                       r1
                       | eth0: 10.0.0.1, 10.0.1.1
        A --- [       b0       ] --- B
        10.0.0.10                    10.0.1.10
    """

    def build(self) -> None:
        only = self.bridge("b0")
        self.host("a", only, 0)
        self.host("b", only, 1)
        self.router("r1", (only, (0, 1), 1))


class Tree(RoutedTopo):
    """Two leaves whose ways to B share the router in the middle.

    ::

        A1 --- [b1] --- r1 ---+
                              [b3] --- r3 --- [b4] --- B
        A2 --- [b2] --- r2 ---+
    """

    def build(self) -> None:
        leaf1, leaf2, middle, root = (self.bridge(f"b{k}") for k in (1, 2, 3, 4))
        self.host("a1", leaf1, 1)
        self.host("a2", leaf2, 2)
        self.host("b", root, 4)
        self.router("r1", (leaf1, 1, 1), (middle, 3, 11))
        self.router("r2", (leaf2, 2, 1), (middle, 3, 12))
        self.router("r3", (middle, 3, 1), (root, 4, 1))


class Uplink(RoutedTopo):
    """The next hop is not on this host: it sits behind an uplink of the last bridge.

    ::

        A --- [b0] --- r1 --- [b1] ===uplink=== [lan] --- gw --- [far] --- B
                               fsctl's | somebody else's
    """

    def build(self) -> None:
        inner, outer = self.bridge("b0"), self.bridge("b1")
        lan, far = self.bridge("lan", managed=False), self.bridge("far", managed=False)
        self.uplink(outer, lan)
        self.host("a", inner, 0)
        self.host("b", far, 2)
        self.router("r1", (inner, 0, 2), (outer, 1, 1))
        self.router("gw", (lan, 1, 254), (far, 2, 1), delegates=False)


class Measured(Chain):
    """A chain whose two hosts also share a bridge that fsctl does not know: the ceiling to measure against.

    ::

        A --- [b0] --- r1 --- ... rn --- [bn] --- B
        +---------------- [plain] ----------------+
                           200
    """

    CEILING_SUBNET = 200

    def build(self, n: int = 1, mtu: int = DEFAULT_MTU) -> None:
        super().build(n, mtu)
        plain = self.bridge("plain", managed=False)
        for number, name in enumerate(("a", "b"), start=1):
            self.attach(self.stations[name], plain, self.CEILING_SUBNET, number)


class Detour(RoutedTopo):
    """A chain of three with a way around its middle. Its routers are given no routes and no neighbours: they find them.

    ::

        A --- [b0] --- r1 --- [b1] --- r2 --- [b2] --- r3 --- [b3] --- B
                0      |        1               2      |        3
                       +------------- [b4] ------------+
                                        4
    """

    ROUTERS_ARE_TOLD = False
    DETOUR_SUBNET = 4

    def build(self) -> None:
        b0, b1, b2, b3, b4 = (self.bridge(f"b{k}") for k in range(5))
        self.host("a", b0, 0)
        self.host("b", b3, 3)
        self.router("r1", (b0, 0, 1), (b1, 1, 1), (b4, 4, 1))
        self.router("r2", (b1, 1, 2), (b2, 2, 2))
        self.router("r3", (b2, 2, 3), (b3, 3, 3), (b4, 4, 3))
