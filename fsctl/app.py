"""The Ryu application: `FSCTL_CONFIG=fsctl.yaml ryu-manager fsctl.app`, or `fsctl serve`.

Wiring only: configuration, store, OVSDB, controller, REST; every handler hands on what it gets.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import eventlet
import eventlet.tpool

from fsctl import compat

compat.install()
from ryu import cfg  # noqa: E402
from ryu.base import app_manager  # noqa: E402 - Ryu's wsgi module needs what `compat` gives back
from ryu.controller import ofp_event, ofp_handler  # noqa: E402
from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls  # noqa: E402
from ryu.lib import hub  # noqa: E402
from ryu.ofproto import ofproto_v1_4  # noqa: E402

from fsctl import config as configuration  # noqa: E402
from fsctl.controller import Controller  # noqa: E402
from fsctl.errors import FsctlError  # noqa: E402
from fsctl.northbound import Auth, make_app  # noqa: E402
from fsctl.northbound.listener import RestListener  # noqa: E402
from fsctl.ovsdb import OvsdbLinks  # noqa: E402
from fsctl.runtime import SLICE_S, Event  # noqa: E402
from fsctl.southbound import Southbound  # noqa: E402
from fsctl.southbound.link import serve as speak_openflow  # noqa: E402
from fsctl.southbound.listener import OpenFlowListener  # noqa: E402
from fsctl.store import SqliteStore  # noqa: E402
from fsctl.watchdog import Watchdog, notify  # noqa: E402

_LOG = logging.getLogger(__name__)
LOOP_HANGS_S = 300.0
"""A loop that has finished nothing for so long hangs. (A million delegations at once take a minute.)"""
END_S = 5.0
"""How long an orderly end may take."""
PORTS_RETRY_S = 1.0
PORTS_AUDIT_S = 60.0
"""How often ports are asked for although no change was reported."""
T = TypeVar("T")
COLLECTOR_THRESHOLDS = (100_000, 50, 10)
"""Python's own (700, 10, 10) are for small heaps. A full table is a million tuples without a cycle among them; searching
these for cycles took half the time of a large write, and stopped everything for up to a second.
"""


class HubRuntime:
    """`runtime.Runtime` on Ryu's green threads."""

    def event(self) -> Event:
        event: Event = hub.Event()
        return event

    def spawn(self, function: Callable[[], None]) -> Callable[[], None]:
        thread = hub.spawn(function)
        return lambda: hub.joinall([thread])

    def pause(self) -> None:
        hub.sleep(0)

    def now(self) -> float:
        return float(eventlet.hubs.get_hub().clock())

    def offload(self, function: Callable[[], T], patience: float, meanwhile: Callable[[], object] | None = None) -> T:
        done: eventlet.Event = eventlet.Event()

        def work() -> None:
            try:
                done.send(eventlet.tpool.execute(function))
            except Exception as e:  # noqa: BLE001 - it is raised where the result is waited for
                done.send_exception(e)

        hub.spawn(work)
        with eventlet.Timeout(patience, TimeoutError()):
            while meanwhile is not None and not done.ready():
                with eventlet.Timeout(SLICE_S, False):
                    done.wait()
                meanwhile()
            result: T = done.wait()
        return result


class FsctlApp(app_manager.RyuApp):
    """One fsctl controller."""

    OFP_VERSIONS = [ofproto_v1_4.OFP_VERSION]  # noqa: RUF012 - Ryu's own way to say it

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        _format_log()
        try:
            self.config = configuration.load(configuration.path_from(os.environ))
            self.openflow = OpenFlowListener(_where_switches_connect(self.config), speak_openflow)
            # Ryu's own listener trusts whatever connects.
            ofp_handler.OpenFlowController = lambda: self.openflow.run
            self.store = SqliteStore(self.config.store)
            self.ovsdb = OvsdbLinks(self.config.ovsdb, sleep=hub.sleep)
            self.fsctl = Controller(self.config, self.store, self.ovsdb, HubRuntime())
            self.rest = RestListener(self.config.rest)
        except FsctlError as e:
            sys.exit(f"fsctl: {e}")
        gc.freeze()  # what was loaded stays: never searched for cycles
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        self._stopping = False
        self._watchdog = Watchdog()
        self._own: list[eventlet.greenthread.GreenThread] = []
        self._ports: dict[int, PortWatcher] = {}

    def start(self) -> None:
        """Ryu calls this once all applications are there."""
        super().start()
        self.ovsdb.manage(self.config.bridges, self.config.controller)
        self.ovsdb.on_change(lambda: self.fsctl.ovsdb_changed(self.ovsdb.view()))
        wsgi = make_app(self.fsctl, Auth.of(self.config), pause=self.fsctl.runtime.pause)
        self._begin(self.fsctl.run)
        self._begin(lambda: self.ovsdb.run(lambda: self._stopping))
        self._begin(lambda: self.rest.serve(wsgi))
        if self.config.rest.socket is not None:
            self._begin(lambda: self.rest.serve_administrator(wsgi))
        self._begin(self._beat)
        self._watchdog.start()
        signal.signal(signal.SIGTERM, lambda *_: hub.spawn(self._terminate))
        signal.signal(signal.SIGHUP, lambda *_: hub.spawn(self._reload))
        where = self.openflow.config
        _LOG.info("OpenFlow on %s:%s:%d", where.kind, where.host, where.port)
        _LOG.info("REST on %s:%d", self.config.rest.host, self.config.rest.port)
        notify("READY=1")

    def _begin(self, part: Callable[[], object]) -> None:
        """Run a part in a thread of its own. If it ends, the process ends: half a controller is worse than none."""

        def run() -> None:
            try:
                part()
            except eventlet.greenlet.GreenletExit:
                return
            except Exception:  # noqa: BLE001 - whatever it is
                _LOG.exception("a part of fsctl has failed")
            if not self._stopping:
                _LOG.critical("a part of fsctl has ended; the process ends. The bridges keep their rules")
                logging.shutdown()
                os._exit(1)

        self._own.append(hub.spawn(run))

    def _beat(self) -> None:
        """Tell the watchdog that green threads run, and that the controller's loop goes on."""
        while not self._stopping:
            if self.fsctl.late_s < LOOP_HANGS_S:
                self._watchdog.beat()
            hub.sleep(1.0)

    def _reload(self) -> None:
        """SIGHUP: read the certificate again. Nothing else is read again, and nothing ends."""
        if self.rest.tls is not None:
            self.rest.tls.reload()
        _LOG.warning("SIGHUP: %s is read at the start only: restart fsctl (no packet is lost)", self.config.file)

    def _terminate(self) -> None:
        """SIGTERM: end in order, but end."""
        _LOG.info("asked to end (SIGTERM); the bridges keep their rules")
        code = 1
        try:
            with eventlet.Timeout(END_S):
                self.stop()
            code = 0
        except (Exception, eventlet.Timeout):  # noqa: BLE001 - whatever does not end is left as it is
            _LOG.exception("fsctl has not ended in order")
        logging.shutdown()
        os._exit(code)

    def stop(self) -> None:
        self._stopping = True
        self._watchdog.stop()
        notify("STOPPING=1")
        self.fsctl.stop()
        for thread in self._own:
            hub.kill(thread)
        super().stop()
        self.openflow.close()
        self.rest.close()
        self.store.close()

    # --- OpenFlow: these handlers run in the thread that receives, so they never wait -----------------------

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def _state_changed(self, event: ofp_event.EventOFPStateChange) -> None:
        datapath = event.datapath
        known = self._ports.pop(id(datapath), None)
        if known is not None:
            known.stop()
        if event.state == DEAD_DISPATCHER:
            return
        try:
            switch = Southbound(datapath)
        except FsctlError as e:
            _LOG.warning("a switch at %s connected and is not used: %s", datapath.address, e)
            return
        if switch.bridge not in self.config.bridges:
            _LOG.info("bridge %s is not in %s: left alone", switch.bridge, self.config.file)
            return
        self._ports[id(datapath)] = watcher = PortWatcher(self.fsctl, switch, datapath.id)
        hub.spawn(watcher.run)

    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def _port_changed(self, event: ofp_event.EventOFPPortStatus) -> None:
        watcher = self._ports.get(id(event.msg.datapath))
        if watcher is not None:
            watcher.look_again()


class PortWatcher:
    """Tells the controller of one switch's connection and of its ports, in a thread of its own.

    However many ports change at once, the switch is asked for all of them at most once more after the last change.
    """

    def __init__(self, controller: Controller, switch: Southbound, datapath_id: int) -> None:
        self._controller, self._switch, self._datapath_id = controller, switch, datapath_id
        self._changed = hub.Event()

    def look_again(self) -> None:
        """A port has changed."""
        self._changed.set()

    def stop(self) -> None:
        """The connection is gone."""
        self._switch.close()
        self._changed.set()

    def run(self) -> None:
        is_known = False
        while not self._switch.is_closed:
            self._changed.clear()
            try:
                ports = self._switch.ports()
            except FsctlError as e:
                if not self._switch.is_closed:
                    _LOG.warning("bridge %s cannot be asked for its ports: %s", self._switch.bridge, e)
                    hub.sleep(PORTS_RETRY_S)
                continue
            if is_known:
                self._controller.ports_changed(self._switch, ports)
            else:
                self._controller.switch_connected(self._switch, ports, self._datapath_id)
                is_known = True
            self._changed.wait(PORTS_AUDIT_S)
        if is_known:
            self._controller.switch_gone(self._switch)


def _format_log() -> None:
    """Each line with its time and level, unless --log-config-file says how."""
    for handler in logging.getLogger().handlers:
        if handler.formatter is None:
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


def _where_switches_connect(config: configuration.Config) -> configuration.OpenFlowConfig:
    """As the configuration says, unless ryu-manager's command line does (--ofp-listen-host, --ofp-tcp-listen-port)."""
    options = cfg.CONF
    where = [options.get_location(name) for name in ("ofp_listen_host", "ofp_tcp_listen_port")]
    given = [found is not None and found.location.is_user_controlled for found in where]
    if not any(given):
        return config.openflow  # Ryu's own default is every address of the host
    host = options.ofp_listen_host if given[0] else None
    port = options.ofp_tcp_listen_port if given[1] else None
    here = config.openflow
    return replace(here, kind="ptcp", host=host or configuration.LOOPBACK, port=port or configuration.OPENFLOW_PORT, tls=None)
