"""The configuration file: what the operator declares, checked before anything starts.

Every error says the file, the line, the key, the value and what was expected (`ConfigError`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fsctl.errors import ConfigError, InvalidError
from fsctl.model.addresses import MAX_MTU, MIN_MTU, parse_mac
from fsctl.model.network import Address
from fsctl.yamltext import Item, read

MEMORY = ":memory:"
ENVIRONMENT_KEY = "FSCTL_CONFIG"
DEFAULT_STORE = "/var/lib/fsctl/fsctl.db"
DEFAULT_OVSDB = "unix:/var/run/openvswitch/db.sock"
LOOPBACK, OPENFLOW_PORT = "127.0.0.1", 6653
DEFAULT_CONTROLLER = f"tcp:{LOOPBACK}:{OPENFLOW_PORT}"
MAX_CHAIN = 254
"""No chain can be longer than the TTL allows (RFC 791: one byte)."""

T = TypeVar("T")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_ROUTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_INTERFACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,31}")
_OVS_NAME = re.compile(r"[^\s/\\\"',]{1,15}")
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
_PASSIVE = re.compile(r"punix:/\S+|(ptcp|pssl):[0-9]{1,5}(:\S+)?")
_REMOTE = re.compile(r"(unix:/\S+|(tcp|ssl):(\[[0-9A-Fa-f:.%\w]+\]|[^\s:\[\]]+):[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class RestConfig:
    """Where REST listens; with `tls_certificate` and `tls_key` (PEM files) it speaks HTTPS.

    With `client_ca`, clients must show a certificate that it has signed. `socket` is the path of the administrator's own way in.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    tls_certificate: str | None = None
    tls_key: str | None = None
    client_ca: str | None = None
    socket: str | None = None


@dataclass(frozen=True, slots=True)
class OpenFlowTls:
    """PEM files. A switch must show a certificate that `ca` has signed."""

    private_key: str
    certificate: str
    ca: str


@dataclass(frozen=True, slots=True)
class OpenFlowConfig:
    """Where switches connect. `controller` is what fsctl sets as the bridges' controller, None: it sets none.

    `kind` is ptcp, pssl or punix, as ovs-vsctl(8) calls passive connections; `host` is an address, or the path of a socket.
    """

    controller: str | None = DEFAULT_CONTROLLER
    kind: str = "ptcp"
    host: str = LOOPBACK
    port: int = OPENFLOW_PORT
    tls: OpenFlowTls | None = None

    @property
    def is_local(self) -> bool:
        """Whether only processes of this host can connect."""
        return self.kind == "punix" or ipaddress.ip_address(self.host).is_loopback


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """A router's interface as declared; `port` or `mac` may be None where OVSDB knows it (attached-mac)."""

    name: str
    bridge: str
    port: str | None = None
    mac: int | None = None
    mtu: int = 1500
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """A router; without `token_sha256` only the administrator delegates for it.

    What its delegations may cost (see `quota`): `max_rules` per bridge, `max_senders` (eth_src) per interface,
    `max_nexthops` in all.
    """

    name: str
    interfaces: Mapping[str, InterfaceConfig]
    token_sha256: str | None = None
    max_flows: int = 200_000
    max_rules: int = 400_000
    max_senders: int = 256
    max_nexthops: int = 4_096


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file.

    `store` is a path or ":memory:".
    """

    file: str
    admin_token_sha256: str
    bridges: tuple[str, ...]
    routers: Mapping[str, RouterConfig]
    rest: RestConfig = field(default_factory=RestConfig)
    store: str = DEFAULT_STORE
    max_hops: int = 32
    ovsdb: str = DEFAULT_OVSDB
    openflow: OpenFlowConfig = field(default_factory=OpenFlowConfig)

    @property
    def controller(self) -> str | None:
        """What fsctl sets as the bridges' controller; None: it sets none."""
        return self.openflow.controller


def path_from(environment: Mapping[str, str]) -> Path:
    """The file that FSCTL_CONFIG names; raises ConfigError where it is not set."""
    name = environment.get(ENVIRONMENT_KEY)
    if not name:
        raise ConfigError(ENVIRONMENT_KEY, "this environment variable is not set: expected the path of the configuration file")
    return Path(name)


def load(path: str | Path) -> Config:
    """Read and check a configuration file; raises ConfigError."""
    root = read(Path(path))
    optional = ("rest", "store", "max_hops", "ovsdb", "openflow")
    keys = root.section(("admin_token_sha256", "bridges", "routers"), optional)
    bridges = _bridges(keys["bridges"])
    config = Config(
        file=str(path),
        admin_token_sha256=_sha256(keys["admin_token_sha256"]),
        bridges=bridges,
        routers=_routers(keys["routers"], bridges),
        rest=_rest(keys["rest"]) if "rest" in keys else RestConfig(),
        store=_store(keys["store"]) if "store" in keys else DEFAULT_STORE,
        max_hops=keys["max_hops"].integer(1, MAX_CHAIN) if "max_hops" in keys else 32,
        ovsdb=_remote(keys["ovsdb"]) if "ovsdb" in keys else DEFAULT_OVSDB,
        openflow=_openflow(keys["openflow"]) if "openflow" in keys else OpenFlowConfig(),
    )
    _check_tokens(config, keys)
    return config


def _sha256(item: Item) -> str:
    return item.text("the SHA-256 of a token, 64 hex digits (fsctl token makes one)", _SHA256).lower()


def _remote(item: Item) -> str:
    return item.text("unix:/PATH, tcp:HOST:PORT or ssl:HOST:PORT", _REMOTE)


def _openflow(item: Item) -> OpenFlowConfig:
    """`listen` follows from `controller` where it is not given."""
    keys = item.section((), ("controller", "listen", "tls"))
    controller: str | None = DEFAULT_CONTROLLER
    if "controller" in keys:
        controller = None if keys["controller"].is_null else _remote(keys["controller"])
    listen = keys.get("listen")
    kind, host, port = _goes_with(controller) if listen is None else _passive(listen)
    tls = _openflow_tls(keys["tls"]) if "tls" in keys else None
    if (kind == "pssl") != (tls is not None):
        raise item.error("tls (private_key, certificate, ca) together with ssl:/pssl:, or neither")
    return OpenFlowConfig(controller, kind, host, port, tls)


def _goes_with(controller: str | None) -> tuple[str, str, int]:
    """Where to listen so that `controller` (unix:, tcp: or ssl:) leads here."""
    kind, _, rest = (controller or DEFAULT_CONTROLLER).partition(":")
    if kind == "unix":
        return "punix", rest, 0
    host, _, port = rest.rpartition(":")
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return f"p{kind}", LOOPBACK, int(port)
    return f"p{kind}", str(found), int(port)


def _passive(item: Item) -> tuple[str, str, int]:
    text = item.text("ptcp:PORT[:ADDRESS], pssl:PORT[:ADDRESS] or punix:/PATH", _PASSIVE)
    kind, _, rest = text.partition(":")
    if kind == "punix":
        return kind, rest, 0
    port, _, host = rest.partition(":")
    try:
        address = str(ipaddress.ip_address(host.strip("[]"))) if host else LOOPBACK
    except ValueError as e:
        raise item.error("an address after the port (without one: the loopback address)") from e
    return kind, address, int(port)


def _openflow_tls(item: Item) -> OpenFlowTls:
    keys = item.section(("private_key", "certificate", "ca"))
    return OpenFlowTls(**{name: _file(entry) for name, entry in keys.items()})


def _store(item: Item) -> str:
    """A relative path is meant from the configuration file on, wherever fsctl is started."""
    text = item.text(f"a file's path, or {MEMORY}")
    return text if text == MEMORY else str(Path(item.file).parent / text)


def _rest(item: Item) -> RestConfig:
    keys = item.section((), ("host", "port", "tls_certificate", "tls_key", "client_ca", "socket"))
    default = RestConfig()
    tls = {name: _file(keys[name]) for name in ("tls_certificate", "tls_key") if name in keys}
    if len(tls) == 1:
        raise item.error("tls_certificate and tls_key together, or neither")
    if "client_ca" in keys and not tls:
        raise keys["client_ca"].error("tls_certificate and tls_key beside it")
    return RestConfig(
        host=keys["host"].text("a host name or address", _HOST) if "host" in keys else default.host,
        port=keys["port"].integer(0, 65535) if "port" in keys else default.port,
        client_ca=_file(keys["client_ca"]) if "client_ca" in keys else None,
        socket=keys["socket"].text("the path of a unix socket") if "socket" in keys else None,
        **tls,
    )


def _file(item: Item) -> str:
    path = Path(item.file).parent / item.text("a file's path")
    if not path.is_file():
        raise item.error("the path of a file that is there")
    return str(path)


def _bridges(item: Item) -> tuple[str, ...]:
    names: list[str] = []
    for entry in item.items("a list of bridge names"):
        name = entry.text("the name of an Open vSwitch bridge, at most 15 characters", _OVS_NAME)
        if name in names:
            raise entry.error("every bridge once")
        names.append(name)
    if not names:
        raise item.error("at least one bridge")
    return tuple(names)


def _routers(item: Item, bridges: tuple[str, ...]) -> dict[str, RouterConfig]:
    once = _Once()
    routers = {}
    for name, entry in item.mapping("a mapping of router names").items():
        if not _ROUTER_NAME.fullmatch(name):
            raise entry.error("a router's name of letters, digits, '.', '_', '-', at most 63 characters")
        keys = entry.section(("interfaces",), ("token_sha256", "max_flows", "max_rules", "max_senders", "max_nexthops"))
        max_flows = keys["max_flows"].integer(0, 100_000_000) if "max_flows" in keys else 200_000
        default_rules = max(400_000, 2 * max_flows)  # a connection makes two
        routers[name] = RouterConfig(
            name,
            _interfaces(keys["interfaces"], bridges, once),
            token_sha256=_sha256(keys["token_sha256"]) if "token_sha256" in keys else None,
            max_flows=max_flows,
            max_rules=keys["max_rules"].integer(0, 400_000_000) if "max_rules" in keys else default_rules,
            max_senders=keys["max_senders"].integer(0, 65_536) if "max_senders" in keys else 256,
            max_nexthops=keys["max_nexthops"].integer(0, 1_000_000) if "max_nexthops" in keys else 4_096,
        )
    return routers


class _Once:
    """What may stand in the file once only, and where it stood first."""

    def __init__(self) -> None:
        self._first: dict[object, str] = {}

    def claim(self, key: object, what: str, item: Item) -> None:
        first = self._first.setdefault(key, item.path)
        if first != item.path:
            raise item.error(f"{what}; {first} has it already")


def _interfaces(item: Item, bridges: tuple[str, ...], once: _Once) -> dict[str, InterfaceConfig]:
    interfaces = {}
    for name, entry in item.mapping("a mapping of interface names").items():
        if not _INTERFACE_NAME.fullmatch(name):
            raise entry.error("an interface's name of letters, digits, '.', '_', ':', '@', '-', at most 32 characters")
        interfaces[name] = _interface(name, entry, bridges, once)
    return interfaces


def _interface(name: str, item: Item, bridges: tuple[str, ...], once: _Once) -> InterfaceConfig:
    keys = item.section(("bridge",), ("port", "mac", "mtu", "addresses"))
    bridge = keys["bridge"].text("a bridge's name")
    if bridge not in bridges:
        raise keys["bridge"].error(f"one of the bridges declared above: {', '.join(bridges)}")
    if "port" not in keys and "mac" not in keys:
        raise item.error("port or mac (or both): without either OVSDB cannot tell which port is meant")
    port = mac = None
    if "port" in keys:
        port = keys["port"].text("a port's name, at most 15 characters", _OVS_NAME)
        once.claim(("port", port), "a port of its own", keys["port"])
    if "mac" in keys:
        mac = _checked(keys["mac"], parse_mac)
        once.claim(("mac", bridge, mac), f"a MAC address that nobody else has on {bridge}", keys["mac"])
    addresses = [_checked(a, Address.parse) for a in keys["addresses"].items("a list")] if "addresses" in keys else []
    return InterfaceConfig(
        name,
        bridge,
        port,
        mac,
        mtu=keys["mtu"].integer(MIN_MTU, MAX_MTU) if "mtu" in keys else 1500,
        addresses=tuple(addresses),
    )


def _checked(item: Item, parse: Callable[[str, str], T]) -> T:
    """A scalar read by one of the model's own parsers, its error told as this file's."""
    try:
        return parse(item.text("a text"), item.path)
    except InvalidError as e:
        raise item.error(e.detail.removeprefix("expected ")) from e


def _check_tokens(config: Config, keys: Mapping[str, Item]) -> None:
    """Two owners of one token could not be told apart."""
    owners = {config.admin_token_sha256: "admin_token_sha256"}
    for name, router in config.routers.items():
        if router.token_sha256 is None:
            continue
        path = f"routers.{name}.token_sha256"
        if (first := owners.setdefault(router.token_sha256, path)) != path:
            detail = f"expected a token of its own; {first} has it already"
            raise ConfigError(keys["routers"].file, detail, field=path, value=router.token_sha256)
