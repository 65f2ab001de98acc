"""`fsctl leave`: the bridges become plain switches again, and nothing of fsctl stays in Open vSwitch."""

from __future__ import annotations

import socket
import time

from fsctl.cli.output import Output
from fsctl.config import Config
from fsctl.errors import ConflictError, UnavailableError
from fsctl.ovsdb import OvsdbLinks

PATIENCE_S = 10.0
STEP_S = 0.01
OTHERS = (
    "another controller remains there: fail mode and rules stay (ovs-ofctl -O OpenFlow14 del-flows BRIDGE "
    '"cookie=0x667363746c000000/-1" removes fsctl\'s)'
)


def leave(config: Config, output: Output) -> int:
    """Give back every bridge that carries this fsctl's controller, in one transaction; returns the exit code.

    A bridge without controllers becomes a plain switch at once: Open vSwitch deletes all rules and bridges (fail mode
    standalone). Raises ConflictError while fsctl runs, UnavailableError if Open vSwitch's database does not answer.
    """
    _must_not_run(config)
    ovsdb = OvsdbLinks(config.ovsdb)
    try:
        ovsdb.wait_ready(PATIENCE_S)
        ovsdb.manage((), config.controller)
        ovsdb.step()
        leaving = ovsdb.to_release
        ovsdb.allow_release()
        ends = time.monotonic() + PATIENCE_S
        while ovsdb.to_release or ovsdb.is_busy:
            if time.monotonic() > ends:
                raise UnavailableError(f"these bridges are not given back: {ovsdb.problem or 'no answer'}", field="bridges",
                                       value=", ".join(ovsdb.to_release))  # fmt: skip
            ovsdb.step()
            time.sleep(STEP_S)
    finally:
        ovsdb.close()
    for bridge in leaving:
        kept = bridge in ovsdb.released_with_rules
        output.line(f"{bridge}: {OTHERS if kept else 'a plain switch again'}")
    if not leaving:
        output.note(f"no bridge carries the controller {config.controller}: nothing to do")
    return 0


def _must_not_run(config: Config) -> None:
    here = config.openflow
    if here.kind == "punix":
        return
    try:
        socket.create_connection((here.host, here.port), timeout=2.0).close()
    except OSError:
        return
    raise ConflictError(
        "fsctl still runs and would take the bridges again: stop it first (systemctl disable --now fsctl)",
        field="openflow.listen", value=f"{here.host}:{here.port}",
    )  # fmt: skip
