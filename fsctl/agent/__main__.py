"""`fsctl-agent run` follows this guest's kernel; `fsctl-agent status` shows what a running agent does."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fsctl import __version__
from fsctl.agent import provisioning, show, status, transport
from fsctl.agent.netlink import Kernel
from fsctl.agent.provisioning import RUN_DIR, Config
from fsctl.agent.runner import Agent
from fsctl.agent.safety import ALLOWABLE
from fsctl.agent.transport import Lanes
from fsctl.client import Client
from fsctl.errors import FsctlError

CALL_SECONDS = 40.0
"""Longer than fsctl waits for its switches, so that its answer comes first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 for an error (said on stderr), 2 for a wrong command line."""
    options = parser().parse_args(arguments)
    level = logging.DEBUG if getattr(options, "verbose", False) else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        return int(options.command(options))
    except FsctlError as e:
        sys.stderr.write(f"fsctl-agent: {e}\n")
        return 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="fsctl-agent", description=__doc__)
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="run | status")
    run = commands.add_parser("run", help="follow the kernel and keep the router's FIB in fsctl equal to it")
    _connection(run)
    run.add_argument("--lease", metavar="SECONDS", help="fsctl forgets this router's flows so long after the last heartbeat (10)")
    run.add_argument("--graceful-restart", metavar="SECONDS", help="and holds them for a returning agent so long (0)")
    run.add_argument(
        "--allow", metavar="NAMES", help=f"bypass in spite of: {'; '.join(f'{n}: {t}' for n, t in ALLOWABLE.items())}"
    )
    run.add_argument("-v", "--verbose", action="store_true", help="log every call")
    run.set_defaults(command=_run)
    shown = commands.add_parser("status", help="what the running agent delegates, and what it refuses and why")
    _connection(shown)
    form = shown.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--prometheus", action="store_true", help="as Prometheus' text format (node_exporter's textfile collector)")
    shown.add_argument("--flows", action="store_true", help="every delegation with the packets and bytes bypassed")
    shown.set_defaults(command=_status)
    return top


def _connection(to: argparse.ArgumentParser) -> None:
    to.add_argument("--url", help="fsctl, like http://192.0.2.1:8080 (FSCTL_URL; xenstore vm-data/fsctl/url)")
    to.add_argument("--router", help="this router's name in fsctl (FSCTL_ROUTER; xenstore vm-data/fsctl/router)")
    to.add_argument("--token-file", metavar="FILE", help="holds this router's token (FSCTL_TOKEN_FILE, FSCTL_TOKEN; xenstore)")
    to.add_argument("--ca-file", metavar="FILE", help="checks fsctl's certificate, beside https")
    to.add_argument("--config", metavar="FILE", type=Path, help=f"key = value lines ({provisioning.CONFIG_FILE})")
    to.add_argument("--run-dir", metavar="DIR", help=f"state that a restart survives, and the status socket ({RUN_DIR})")


def _flags(options: argparse.Namespace) -> dict[str, str | None]:
    names = ("url", "router", "token_file", "ca_file", "lease", "graceful_restart", "allow", "run_dir")
    return {name: getattr(options, name, None) for name in names}


def _load(options: argparse.Namespace) -> Config:
    return provisioning.load(_flags(options), file=options.config)


def _run(options: argparse.Namespace) -> int:
    config = _load(options)
    session = provisioning.session_id(config.run_dir)
    lanes = Lanes(transport.http(config.url, config.token, config.ca_file, CALL_SECONDS))
    agent = Agent(config, Kernel(), lanes, session)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    logging.getLogger("fsctl.agent").info("router %s, fsctl at %s", config.router, config.url)
    agent.run()
    return 0


def _status(options: argparse.Namespace) -> int:
    where = provisioning.told(_flags(options), file=options.config).get("run_dir")
    state = status.ask(Path(where[0]) if where else RUN_DIR)
    flows = []
    if options.flows or options.prometheus:
        config = _load(options)
        flows = Client(config.url, config.token, ca_file=config.ca_file).flows(config.router)
    if options.json:
        text = json.dumps(state | ({"flows": flows} if options.flows else {}), indent=2) + "\n"
    elif options.prometheus:
        text = show.prometheus(state, flows)
    else:
        text = show.human(state, flows)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
