"""A private Open vSwitch for one test, and OvsdbLinks that step in a thread beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fsctl.ovsdb import OvsdbLinks, link_name
from topologies.sandbox import Sandbox

CONTROLLER = "tcp:127.0.0.1:6699"


def pairs(*joined: tuple[str, str]) -> frozenset[frozenset[str]]:
    return frozenset(map(frozenset, joined))


class Box(Sandbox):
    """A sandbox, and questions about its database."""

    def get(self, table: str, record: str, column: str) -> str:
        return self.vsctl("get", table, record, column).strip().strip('"')

    def column(self, table: str, column: str) -> list[str]:
        """One column of all rows, set members and rows in one list."""
        return self.vsctl("--columns", column, "--bare", "list", table).split()

    def patch_ports(self, bridge: str) -> set[str]:
        return {port for port in self.vsctl("list-ports", bridge).split() if port.startswith("fsl")}

    def goes_through(self, bridge: str, peer: str) -> bool:
        """Whether what `bridge` outputs to its patch port gets to `peer`."""
        ofport = self.get("interface", link_name(bridge, peer), "ofport")
        self.ofctl("add-flow", bridge, f"priority=9,in_port=1,actions=output:{ofport}")
        trace = self.appctl("ofproto/trace", bridge, "in_port=1,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:99")
        return f'bridge("{peer}")' in trace

    def make_first_edition_link(self, here: str, there: str) -> None:
        """Patch ports as fsctl made them before spanning trees were thought of, and before rows had owners."""
        args: list[str] = []
        for one, other in ((here, there), (there, here)):
            name, peer = link_name(one, other), link_name(other, one)
            args += ["--", "add-port", one, name, "tag=4095", f"external_ids={{fsctl=link,fsctl-peer={other}}}",
                     "--", "set", "interface", name, "type=patch", f"options:peer={peer}",
                     f"external_ids={{fsctl=link,fsctl-peer={other}}}"]  # fmt: skip
        self.vsctl("--no-wait", *args[1:])

    def dump(self) -> str:
        """The whole database but for what ovs-vswitchd keeps counting."""
        columns = {
            "Bridge": "name,ports,controller,fail_mode,protocols,flow_tables",
            "Port": "name,tag,interfaces,external_ids,other_config",
            "Interface": "name,type,options,external_ids",
            "Controller": "target,max_backoff,inactivity_probe,external_ids",
            "Flow_Table": "prefixes",
        }
        return "".join(self.vsctl("-f", "csv", "--columns", c, "list", table) for table, c in columns.items())


@contextmanager
def stepping(box: Sandbox) -> Iterator[OvsdbLinks]:
    """OvsdbLinks whose `run` is under way in a thread."""
    links = OvsdbLinks(box.remote)
    done = threading.Event()
    thread = threading.Thread(target=links.run, args=(done.is_set,), daemon=True)
    thread.start()
    try:
        yield links
    finally:
        done.set()
        thread.join(10)
        links.close()


def are_made(links: OvsdbLinks, *wanted: tuple[str, str]) -> bool:
    there = links.view().links
    return all(b in there.get(a, {}) and a in there.get(b, {}) for a, b in wanted)
