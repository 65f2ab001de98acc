"""The network that both labs build: who is plugged in where, with which addresses.

                 br-a           br-b           br-c           br-d
    nodea eth0 --+-- eth0 vr1 eth1 --+-- eth0 vr2 eth1 --+-- eth0 vr3 eth1 --+
                 |              |              |              |
    nodeb       eth0           eth1           eth2           eth3

nodeb has a foot on every bridge, so one build serves chains of 1, 2 and 3 routers: the destination
10.0.(n+1).2 is n routers away from nodea, and 10.0.100.2 is on nodea's own bridge (plain L2, the ceiling).
Every guest also has an interface `mgmt` on br-mgmt, where the host is 10.99.0.1: the routers' way to the
controller, and the lab's way into the guests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MGMT_BRIDGE = "br-mgmt"
MGMT_HOST = "10.99.0.1"
REST_PORT = 8080
MAX_CHAIN = 3
DIRECT = 0
"""The chain without routers: nodea and nodeb on one bridge."""


@dataclass(frozen=True, slots=True)
class Nic:
    """A guest's network card; `address` is address/length."""

    name: str
    bridge: str
    mac: str
    address: str


@dataclass(frozen=True, slots=True)
class Guest:
    """A virtual machine. `routes` are (destination, gateway); `mgmt` its address on the management bridge."""

    name: str
    nics: tuple[Nic, ...]
    mgmt: str
    routes: tuple[tuple[str, str], ...] = ()
    is_router: bool = False
    extra_addresses: tuple[tuple[str, str], ...] = field(default=())

    @property
    def data_nics(self) -> tuple[Nic, ...]:
        return self.nics[:-1]

    def command_line(self) -> str:
        """What the guest's init reads from /proc/cmdline: MACs decide which card gets which name."""
        words = [f"lab.name={self.name}", *(f"lab.nic={n.mac},{n.name},{n.address}" for n in self.nics)]
        words += [f"lab.address={nic},{address}" for nic, address in self.extra_addresses]
        words += [f"lab.route={to},{via}" for to, via in self.routes]
        return " ".join(words + ["lab.router"] * self.is_router)


def _mac(guest: int, nic: int) -> str:
    return f"00:16:3e:00:{guest:02x}:{nic:02x}"


def _guest(number: int, name: str, ports: Sequence[tuple[str, str]], **more: object) -> Guest:
    mgmt = f"10.99.0.{10 + number}"
    nics = [Nic(f"eth{n}", bridge, _mac(number, n), address) for n, (bridge, address) in enumerate(ports)]
    nics.append(Nic("mgmt", MGMT_BRIDGE, f"00:16:3e:ff:00:{number:02x}", f"{mgmt}/24"))
    return Guest(name, tuple(nics), mgmt, **more)  # type: ignore[arg-type]


def bridge(number: int) -> str:
    """The n-th data bridge, counted from 1 (br-a)."""
    return f"br-{chr(ord('a') + number - 1)}"


def router(number: int, length: int) -> Guest:
    """vr<number> of a chain of `length`: left on bridge `number`, right on the next one."""
    left = f"10.0.{number}.{1 if number == 1 else 254}/24"
    right = f"10.0.{number + 1}.1/24"
    back = [("10.0.1.0/24", f"10.0.{number}.1")] if number > 1 else []
    on = [(f"10.0.{n}.0/24", f"10.0.{number + 1}.254") for n in range(number + 2, length + 2)]
    return _guest(
        number, f"vr{number}", [(bridge(number), left), (bridge(number + 1), right)],
        routes=tuple(back + on), is_router=True,
    )  # fmt: skip


SPARE = Nic("eth2", "br-d", _mac(1, 2), "10.0.4.250/24")
"""A third interface of vr1, declared to fsctl and plugged in later: a short cut to the end of the chain."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A lab's network: nodea, nodeb and a chain of `length` routers."""

    length: int = MAX_CHAIN

    @property
    def bridges(self) -> tuple[str, ...]:
        return tuple(bridge(n) for n in range(1, self.length + 2))

    @property
    def routers(self) -> tuple[Guest, ...]:
        return tuple(router(n, self.length) for n in range(1, self.length + 1))

    @property
    def nodea(self) -> Guest:
        return _guest(
            10, "nodea", [("br-a", "10.0.1.2/24")],
            routes=(("10.0.0.0/16", "10.0.1.1"),), extra_addresses=(("eth0", "10.0.100.1/24"),),
        )  # fmt: skip

    @property
    def nodeb(self) -> Guest:
        feet = [("br-a", "10.0.100.2/24")] + [(bridge(n), f"10.0.{n}.2/24") for n in range(2, self.length + 2)]
        return _guest(11, "nodeb", feet)

    @property
    def guests(self) -> tuple[Guest, ...]:
        return (self.nodea, *self.routers, self.nodeb)


def destination(chain: int) -> str:
    """nodeb's address `chain` routers away from nodea."""
    return "10.0.100.2" if chain == DIRECT else f"10.0.{chain + 1}.2"


def way_back(chain: int) -> str:
    """The command that makes nodeb answer nodea through a chain of `chain` routers."""
    return "true" if chain == DIRECT else f"ip route replace 10.0.1.0/24 via 10.0.{chain + 1}.1"
