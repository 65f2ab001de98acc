"""What Open vSwitch's database knows of bridges and ports, and the few things fsctl writes there.

Column and table names are those of ovs-vswitchd.conf.db(5). fsctl adds its controller to a bridge, its
patch port pairs between bridges, and the prefix tracking of its flow tables. What it adds carries
`external_ids:fsctl`; nothing else is removed or altered.

The connection is the IDL of Open vSwitch's Python library, which reconnects by itself (1 to 8 seconds
after ovsdb-server has gone) and then loads the contents anew. `OvsdbLinks` works in plain threads and in
green ones: it never blocks in a lock or in poll(2), only in the `sleep` that it is given.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ovs.dirs
from ovs.db.idl import Idl, SchemaHelper, Transaction

from fsctl.errors import InvalidError, UnavailableError
from fsctl.model import parse_mac
from fsctl.rules import EGRESS, FLOW_SWITCH, GUARD, MTU
from fsctl.status import BridgeInfo, OvsdbView, PortInfo

Row = Any
_LOG = logging.getLogger(__name__)

OURS = "fsctl"
"""The key in `external_ids` that marks a row as fsctl's; the value says what it is for."""
PEER = "fsctl-peer"
LINK = "link"
LINK_TAG = 4095
"""No frame is ever in VLAN 4095 (IEEE 802.1Q, 9.6): NORMAL floods nothing into a port with this tag."""
PREFIXES = ("ipv6_dst", "nw_dst", "nw_src")
"""Fields whose prefixes the classifier tracks; three is Open vSwitch's limit."""
TABLES = (GUARD, FLOW_SWITCH, EGRESS, MTU)
OPENFLOW = "OpenFlow14"
MAX_BACKOFF_MS = 1_000
INACTIVITY_PROBE_MS = 30_000
"""A large compilation may keep the controller from answering echo requests for longer than the default 5 s."""
DEFAULT_MTU = 1_500
STEP_S = 0.05
TURN_S = 0.002


def _set_of(kind: str | dict[str, str]) -> dict[str, Any]:
    return {"key": kind, "min": 0, "max": "unlimited"}


def _optional(kind: str) -> dict[str, Any]:
    return {"key": kind, "min": 0, "max": 1}


def _reference(table: str) -> dict[str, str]:
    return {"type": "uuid", "refTable": table}


_STRINGS = {"key": "string", "value": "string", "min": 0, "max": "unlimited"}
_FLOW_TABLES = {"key": "integer", "value": _reference("Flow_Table"), "min": 0, "max": "unlimited"}
_COLUMNS: dict[str, dict[str, Any]] = {
    "Bridge": {
        "name": "string",
        "fail_mode": _optional("string"),
        "protocols": _set_of("string"),
        "ports": _set_of(_reference("Port")),
        "controller": _set_of(_reference("Controller")),
        "flow_tables": _FLOW_TABLES,
    },
    "Port": {
        "name": "string",
        "tag": _optional("integer"),
        "trunks": _set_of("integer"),
        "vlan_mode": _optional("string"),
        "interfaces": _set_of(_reference("Interface")),
        "external_ids": _STRINGS,
    },
    "Interface": {
        "name": "string",
        "type": "string",
        "options": _STRINGS,
        "mtu": _optional("integer"),
        "external_ids": _STRINGS,
    },
    "Controller": {
        "target": "string",
        "connection_mode": _optional("string"),
        "max_backoff": _optional("integer"),
        "inactivity_probe": _optional("integer"),
        "external_ids": _STRINGS,
    },
    "Flow_Table": {"prefixes": _set_of("string"), "external_ids": _STRINGS},
}
"""The part of the schema that fsctl reads or writes: no other column is asked for, nor its updates."""


def default_remote() -> str:
    """The local database: `OVS_RUNDIR` if set, else where Open vSwitch was built to look."""
    return f"unix:{ovs.dirs.RUNDIR}/db.sock"


def link_name(bridge: str, peer: str) -> str:
    """The patch port on `bridge` towards `peer`: the same in every run, at most 15 characters (IFNAMSIZ)."""
    return "fsl" + hashlib.blake2s(f"{bridge}>{peer}".encode(), digest_size=6).hexdigest()


class OvsdbLinks:
    """Bridges, ports and patch links in one Open vSwitch database.

    Call `step` about 20 times a second, or let `run` do it in a thread of its own. Every method that
    writes returns once the database has committed, and raises UnavailableError if it does not do so in
    `timeout_s` seconds, cannot be reached, or has no such bridge.
    """

    def __init__(
        self,
        remote: str | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        timeout_s: float = 5.0,
    ) -> None:
        tables = {name: {"columns": {c: {"type": t} for c, t in columns.items()}} for name, columns in _COLUMNS.items()}
        schema = SchemaHelper(schema_json={"name": "Open_vSwitch", "version": "8.0.0", "tables": tables})
        schema.register_all()
        self.remote = remote or default_remote()
        self._idl = Idl(self.remote, schema)
        self._sleep = sleep
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._view = OvsdbView()
        self._view_seqno = self._notified_seqno = self._idl.change_seqno
        self._callbacks: list[Callable[[], None]] = []

    # Reading

    @property
    def ready(self) -> bool:
        """Whether the database's contents have been seen; until then `view` is empty and means nothing."""
        return bool(self._idl.has_ever_connected())

    def view(self) -> OvsdbView:
        """Ports and links as last seen, also while ovsdb-server is away. fsctl's own patch ports are in `links` alone."""
        return self._view

    def on_change(self, callback: Callable[[], None]) -> None:
        """`callback()` runs within `step`, after the view has changed; it may call every method of this class but `step`."""
        self._callbacks.append(callback)

    def step(self) -> bool:
        """Take in what the database has sent; true if the view is a new one."""
        with self._exclusive():
            self._idl.run()
            self._refresh()
            changed: bool = self._notified_seqno != self._view_seqno
            self._notified_seqno = self._view_seqno
        if changed:
            for callback in self._callbacks:
                callback()
        return changed

    def run(self, stopped: Callable[[], bool]) -> None:
        """`step` until `stopped()`."""
        while not stopped():
            self.step()
            self._sleep(STEP_S)

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Until the database's contents are known; raises UnavailableError after `timeout_s` seconds."""
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        while not self.ready:
            if time.monotonic() > deadline:
                raise UnavailableError("no answer from Open vSwitch's database", field="ovsdb", value=self.remote)
            self.step()
            self._sleep(TURN_S)

    def close(self) -> None:
        self._idl.close()

    # Writing

    def ensure_bridge(self, name: str, controller: str | None = None) -> None:
        """Make an existing bridge one that fsctl can control.

        Fail mode secure; OpenFlow 1.4 among the protocols; `controller` (like `tcp:127.0.0.1:6653`) among its
        controllers; prefix tracking for fsctl's tables. Settings that an operator has made are kept. Open vSwitch
        itself drops the flows of a bridge that gets its first controller.
        """

        def change(txn: Transaction) -> None:
            bridge = self._bridge(name)
            if bridge.fail_mode != ["secure"]:
                bridge.fail_mode = ["secure"]
            if bridge.protocols and OPENFLOW not in bridge.protocols:
                bridge.addvalue("protocols", OPENFLOW)
            self._ensure_prefixes(txn, bridge)
            if controller is not None:
                self._ensure_controller(txn, bridge, controller)

        self._transact(f"prepare bridge {name}", change)

    def ensure_link(self, bridge: str, peer: str) -> None:
        """A pair of patch ports between two bridges, made in one transaction; nothing where it is there already."""

        def change(txn: Transaction) -> None:
            self._ensure_patch(txn, bridge, peer)
            self._ensure_patch(txn, peer, bridge)

        self._transact(f"link {bridge} and {peer}", change)

    def remove_link(self, bridge: str, peer: str) -> None:
        """Take away fsctl's patch ports between two bridges, or what is left of them."""

        def change(_txn: Transaction) -> None:
            for here, there in ((bridge, peer), (peer, bridge)):
                port = self._named("Port", link_name(here, there))
                owner = self._named("Bridge", here)
                if port is not None and owner is not None and port in owner.ports and _is_link(port):
                    owner.delvalue("ports", port)

        self._transact(f"unlink {bridge} and {peer}", change)

    def _ensure_prefixes(self, txn: Transaction, bridge: Row) -> None:
        present = bridge.flow_tables
        for number in TABLES:
            if number not in present:
                row = txn.insert(self._idl.tables["Flow_Table"])
                row.prefixes = list(PREFIXES)
                row.external_ids = {OURS: "prefixes"}
                bridge.setkey("flow_tables", number, row)

    def _ensure_controller(self, txn: Transaction, bridge: Row, target: str) -> None:
        row = next((c for c in bridge.controller if c.target == target), None)
        if row is None:
            row = txn.insert(self._idl.tables["Controller"])
            row.target = target
            # In-band control would put hidden flows above fsctl's guard.
            row.connection_mode = ["out-of-band"]
            row.max_backoff = [MAX_BACKOFF_MS]
            row.inactivity_probe = [INACTIVITY_PROBE_MS]
            row.external_ids = {OURS: "controller"}
            bridge.addvalue("controller", row)
            return
        if not row.max_backoff:
            row.max_backoff = [MAX_BACKOFF_MS]
        if not row.inactivity_probe:
            row.inactivity_probe = [INACTIVITY_PROBE_MS]

    def _ensure_patch(self, txn: Transaction, here: str, there: str) -> None:
        bridge, name = self._bridge(here), link_name(here, there)
        port, interface = self._named("Port", name), self._named("Interface", name)
        if port is None and interface is None:
            port, interface = txn.insert(self._idl.tables["Port"]), txn.insert(self._idl.tables["Interface"])
            port.name = interface.name = name
            port.interfaces = [interface]
            bridge.addvalue("ports", port)
        elif port is None or interface is None or not _is_link(port) or port not in bridge.ports:
            raise UnavailableError("a port that is not fsctl's has the name of a patch port", field="ovsdb", value=name)
        _assign(port, tag=[LINK_TAG], external_ids={OURS: LINK, PEER: there})
        _assign(interface, type="patch", options={"peer": link_name(there, here)}, external_ids={OURS: LINK, PEER: there})

    # Inside

    def _bridge(self, name: str) -> Row:
        row = self._named("Bridge", name)
        if row is None:
            raise UnavailableError("Open vSwitch has no such bridge", field="bridge", value=name)
        return row

    def _named(self, table: str, name: str) -> Row | None:
        return next((row for row in self._idl.tables[table].rows.values() if row.name == name), None)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        # A lock that is waited for with `sleep`: green threads share one native thread, which must not block.
        while not self._lock.acquire(blocking=False):
            self._sleep(TURN_S)
        try:
            yield
        finally:
            self._lock.release()

    def _transact(self, what: str, change: Callable[[Transaction], None]) -> None:
        self.wait_ready()
        deadline = time.monotonic() + self._timeout_s
        with self._exclusive():
            while (status := self._attempt(change, deadline)) == Transaction.TRY_AGAIN:
                if time.monotonic() > deadline:
                    break
                self._sleep(STEP_S)
                self._idl.run()
            self._refresh()
        if status not in (Transaction.SUCCESS, Transaction.UNCHANGED):
            why = "no answer" if status in (Transaction.INCOMPLETE, Transaction.TRY_AGAIN) else str(status)
            raise UnavailableError(f"Open vSwitch's database did not {what}: {why}", field="ovsdb", value=self.remote)

    def _attempt(self, change: Callable[[Transaction], None], deadline: float) -> Any:
        self._idl.run()
        txn = Transaction(self._idl)
        try:
            change(txn)
        except BaseException:
            txn.abort()
            raise
        while (status := txn.commit()) == Transaction.INCOMPLETE and time.monotonic() < deadline:
            self._sleep(TURN_S)
            self._idl.run()
        if status == Transaction.ERROR:
            return txn.get_error()
        if status == Transaction.INCOMPLETE:
            txn.abort()
        return status

    def _refresh(self) -> None:
        if self._view_seqno != self._idl.change_seqno:
            self._view_seqno = self._idl.change_seqno
            self._view = _view_of(self._idl.tables["Bridge"].rows.values())


def _assign(row: Row, **columns: Any) -> None:
    """Set what differs, so that a transaction that changes nothing is never sent."""
    for name, value in columns.items():
        if getattr(row, name, None) != value:
            setattr(row, name, value)


def _is_link(port: Row) -> bool:
    return bool(port.external_ids.get(OURS) == LINK)


def _view_of(bridges: Any) -> OvsdbView:
    rows = list(bridges)
    view = OvsdbView(bridges={row.name: BridgeInfo(row.name) for row in rows}, is_known=True)
    made = {port.name for row in rows for port in row.ports if _is_link(port)}
    for bridge in rows:
        for port in bridge.ports:
            if not _is_link(port):
                for info in _infos(bridge.name, port):
                    view.ports[bridge.name, info.name] = info
                continue
            peer = port.external_ids.get(PEER, "")
            # Half a pair carries nothing.
            if link_name(peer, bridge.name) in made:
                view.links.setdefault(bridge.name, {})[peer] = port.name
    return view


def _infos(bridge: str, port: Row) -> Iterator[PortInfo]:
    """One per interface: OpenFlow's ports are OVSDB's interfaces (a bond has several)."""
    unfit = "has a VLAN configuration" if port.tag or port.trunks or port.vlan_mode else ""
    for interface in port.interfaces:
        ids = interface.external_ids
        yield PortInfo(
            name=interface.name,
            bridge=bridge,
            attached_mac=_attached_mac(ids.get("attached-mac")),
            mtu=interface.mtu[0] if interface.mtu else DEFAULT_MTU,
            exempt=unfit,
            unfit=unfit,
            iface_id=ids.get("iface-id", ""),
            uuid=str(interface.uuid),
        )


def _attached_mac(text: str | None) -> int | None:
    """Whoever starts the guest writes it (Xen, libvirt); what is no unicast MAC address is as good as none."""
    try:
        return None if text is None else parse_mac(text)
    except InvalidError:
        _LOG.warning("external_ids:attached-mac is no MAC address: %r", text)
        return None
