"""A Ryu application that does with real switches what a test asks for over a unix socket.

Started by `ovs_driver.Driver` as a process of its own, because Ryu and eventlet keep global state. Requests and
answers are pickles behind a length of 4 bytes: (bridge, method, arguments) -> (True, result) or (False, exception).
"""

from __future__ import annotations

import os
import pickle
import socket
from typing import Any

import eventlet
from ryu.base import app_manager
from ryu.controller import ofp_event
from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_4

from fsctl.southbound import Southbound

READY_TIMEOUT_S = 20.0


class RyuDriver(app_manager.RyuApp):
    """Keeps a Southbound per connected bridge; `seen` counts the events that Ryu's own applications got."""

    OFP_VERSIONS = (ofproto_v1_4.OFP_VERSION,)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.switches: dict[str, Southbound] = {}
        self.datapaths: dict[Any, str] = {}
        self.seen: dict[str, int] = {}

    def start(self) -> Any:
        super().start()
        return hub.spawn(self._serve)

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def state_changed(self, event: Any) -> None:
        datapath = event.datapath
        if event.state == MAIN_DISPATCHER:
            switch = Southbound(datapath)
            self.switches[switch.bridge] = switch
            self.datapaths[switch.bridge] = datapath
        else:
            for bridge, known in list(self.datapaths.items()):
                if known is datapath:
                    self.switches[bridge].close()

    @set_ev_cls(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def flow_stats(self, event: Any) -> None:
        self.seen["flows"] = self.seen.get("flows", 0) + len(event.msg.body)

    def _serve(self) -> None:
        listener = eventlet.listen(os.environ["FSCTL_TEST_SOCKET"], family=socket.AF_UNIX)
        while True:
            connection, _ = listener.accept()
            hub.spawn(self._answer_all, connection)

    def _answer_all(self, connection: Any) -> None:
        stream = connection.makefile("rwb")
        while head := stream.read(4):
            bridge, method, arguments = pickle.loads(stream.read(int.from_bytes(head, "big")))
            try:
                answer = (True, self._do(bridge, method, arguments))
            except Exception as e:  # noqa: BLE001 - it is re-raised in the test
                answer = (False, e)
            body = pickle.dumps(answer)
            stream.write(len(body).to_bytes(4, "big") + body)
            stream.flush()

    def _do(self, bridge: str, method: str, arguments: tuple[Any, ...]) -> Any:
        if method == "wait":
            with hub.Timeout(READY_TIMEOUT_S):
                while bridge not in self.switches:
                    hub.sleep(0.02)
            return True
        if method == "seen":
            return dict(self.seen)
        if method == "ryu_flow_stats":
            datapath = self.datapaths[bridge]
            datapath.send_msg(datapath.ofproto_parser.OFPFlowStatsRequest(datapath))
            return True
        if method == "fill":
            pieces, end, pause_s = arguments
            filling = self.switches[bridge].fill()
            for piece in pieces:
                filling.add(piece)
                hub.sleep(pause_s)
            return getattr(filling, end)()
        if method == "send_raw":
            return self.datapaths[bridge].send(arguments[0])
        return getattr(self.switches[bridge], method)(*arguments)
