"""The argument parser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fsctl import __version__
from fsctl.client import DEFAULT_URL

_ENVIRONMENT = """\
environment:
  FSCTL_URL         where fsctl answers (default http://127.0.0.1:8080)
  FSCTL_TOKEN       the bearer token: the administrator's, or a router's for that router
  FSCTL_TOKEN_FILE  a file that holds the token (its first line)
  FSCTL_CA_FILE     a PEM file to check the server's certificate with
  FSCTL_CONFIG      the configuration file of `fsctl serve`

exit codes: 0 done, 1 refused or failed, 2 usage, 3 nobody answers
"""

_SERVE_EXAMPLES = """\
What stands after -- goes to ryu-manager.

examples:
  fsctl serve --config fsctl.yaml
  fsctl serve --config fsctl.yaml -- --ofp-tcp-listen-port 6633
"""

_FLOWS_ADD_EXAMPLES = """\
examples:
  fsctl flows add vr1 --in eth0 --dst 10.0.2.0/24 --out eth1 --eth-dst 02:00:00:00:00:0b
  fsctl flows add vr1 --in eth0 --dst 10.0.2.9 --action punt
  fsctl flows add vr1 --in eth0 --src 10.0.1.7 --dst 10.0.2.5 --proto tcp --sport 40000 --dport 80 --action drop
  fsctl flows add vr1 --file more-flows.json
"""


_ORPHANS_EXAMPLE = """\
They are kept for 7 days and never installed by themselves. To put them back, once the configuration has their router
or interface again (`flows add vr9 --file vr9.json` keeps what the router has by now):
  fsctl orphans --json | jq '.orphans[0]' > vr9.json
  fsctl flows put vr9 vr9.json
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """`run` is the command's name in `commands`, `passed_on` the arguments after `--` (for serve and demo)."""
    own, passed_on = list(argv), []
    if "--" in own:
        at = own.index("--")
        own, passed_on = own[:at], own[at + 1 :]
    top = parser()
    args = top.parse_args(own)
    if passed_on and args.run not in ("serve", "demo"):
        top.error(f"only serve and demo pass arguments on: {' '.join(passed_on)}")
    args.passed_on = passed_on
    return args


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = _Parser(prog="fsctl", description="Bypass virtual routers with collapsed Open vSwitch rules.", epilog=_ENVIRONMENT)
    top.add_argument("--version", action="version", version=f"fsctl {__version__}")
    _common(top, for_top=True)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _serve(commands)
    _command(commands, "status", "status", "routers, interfaces and bridges, and whether all is in step")
    _flows(commands)
    rules = _command(commands, "rules", "rules", "installed rules, and the delegations each was collapsed from")
    rules.add_argument("--bridge", help="only this bridge's")
    orphans = _command(commands, "orphans", "orphans", "delegations of routers and interfaces that are no longer configured")
    orphans.epilog = _ORPHANS_EXAMPLE
    router = _command(commands, "router", "", "what is about a router as a whole")
    forget = _command(router.add_subparsers(title="commands", metavar="COMMAND", required=True), "forget", "router_forget",
                      "delete what is kept aside of a router that is no longer configured")  # fmt: skip
    forget.add_argument("router")
    _walk(commands)
    leave = _command(commands, "leave", "leave", "give the bridges back as plain switches, once fsctl is stopped")
    leave.add_argument("--config", metavar="FILE", help="the configuration (else FSCTL_CONFIG names it)")
    token = _command(commands, "token", "token", "make a token, and the SHA-256 for the configuration")
    token.add_argument("--write", metavar="FILE", help="write the token into this new file (mode 0600) and show its SHA-256 only")
    token.epilog = "The token is shown once, or not at all with --write; the configuration holds its SHA-256 only."
    demo = _command(commands, "demo", "demo", "a chain of virtual routers in Mininet, measured before and after (root)")
    demo.usage, demo.epilog = "fsctl demo [OPTION ...] [-- DEMO_OPTION ...]", "What stands after -- goes to the demo."
    return top


class _Parser(argparse.ArgumentParser):
    """Keeps the line breaks of the examples."""

    def __init__(self, **options: object) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})  # type: ignore[arg-type]


_Commands = argparse._SubParsersAction  # the class has no public name


def _common(p: argparse.ArgumentParser, *, for_top: bool = False) -> None:
    """Options that may stand before and after the command."""

    def default(value: object) -> object:
        return value if for_top else argparse.SUPPRESS

    p.add_argument("--json", action="store_true", default=default(False), help="print JSON")
    p.add_argument("--url", default=default(None), help=f"where fsctl answers (FSCTL_URL, else {DEFAULT_URL})")
    p.add_argument("--token-file", default=default(None), metavar="FILE", help="a file that holds the token")
    p.add_argument("--ca-file", default=default(None), metavar="FILE", help="PEM file to check the server's certificate with")


def _command(commands: _Commands[_Parser], name: str, run: str, help_text: str) -> _Parser:
    p = commands.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
    _common(p)
    p.set_defaults(run=run)
    return p


def _serve(commands: _Commands[_Parser]) -> None:
    p = _command(commands, "serve", "serve", "run the controller: the same as FSCTL_CONFIG=FILE ryu-manager fsctl.app")
    p.add_argument("--config", metavar="FILE", help="the configuration (else FSCTL_CONFIG names it)")
    p.usage = "fsctl serve [OPTION ...] [-- RYU_OPTION ...]"
    p.epilog = _SERVE_EXAMPLES


def _flows(commands: _Commands[_Parser]) -> None:
    flows = _command(commands, "flows", "", "list and change a router's delegations")
    verbs = flows.add_subparsers(title="commands", metavar="COMMAND", required=True)

    p = _command(verbs, "list", "flows_list", "the router's delegations, and what became of each")
    p.add_argument("router")
    p.add_argument("--state", choices=("installed", "slow_path", "refused"), help="only those in this state")

    p = _command(verbs, "put", "flows_put", "replace all delegations of the router at once")
    p.add_argument("router")
    p.add_argument("file", help='JSON: {"flows": [...]} or [...], as `flows list --json` prints it; - reads standard input')
    _no_wait(p)
    p.epilog = "examples:\n  fsctl flows list vr1 --json > vr1.json\n  fsctl flows put vr1 vr1.json"

    p = _command(verbs, "add", "flows_add", "add or replace one delegation, or those of a file")
    p.add_argument("router")
    p.add_argument("--file", help="JSON file with flows, instead of the other options; - reads standard input")
    _match_options(p)
    p.add_argument("--action", choices=("forward", "punt", "drop"), default=None, help="default: forward")
    p.add_argument("--out", metavar="INTERFACE", help="forward: egress interface")
    p.add_argument("--eth-dst", metavar="MAC", help="forward: the next hop's MAC address")
    _no_wait(p)
    p.epilog = _FLOWS_ADD_EXAMPLES

    p = _command(verbs, "remove", "flows_remove", "remove one delegation, or all")
    p.add_argument("router")
    p.add_argument("--all", action="store_true", help="all of the router's")
    _match_options(p)
    _no_wait(p)
    p.epilog = "examples:\n  fsctl flows remove vr1 --in eth0 --dst 10.0.2.0/24\n  fsctl flows remove vr1 --all"


def _no_wait(p: argparse.ArgumentParser) -> None:
    p.add_argument("--no-wait", dest="wait", action="store_false", help="do not wait until the switches have confirmed")


def _match_options(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("match")
    group.add_argument("--in", dest="in_port", metavar="INTERFACE", help="ingress interface of the router")
    group.add_argument("--dst", metavar="PREFIX", help="destination: IPv4 or IPv6, host or CIDR prefix")
    group.add_argument("--eth-src", metavar="MAC", help="only from this sender")
    _connection_options(group)


def _connection_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--src", metavar="ADDRESS", help="a connection's source address")
    group.add_argument("--proto", choices=("tcp", "udp"), help="a connection's protocol")
    group.add_argument("--sport", type=int, metavar="PORT", help="a connection's source port")
    group.add_argument("--dport", type=int, metavar="PORT", help="a connection's destination port")


def _walk(commands: _Commands[_Parser]) -> None:
    p = _command(commands, "walk", "walk", "explain what happens to a packet, hop by hop")
    p.add_argument("bridge")
    p.add_argument("--in-port", required=True, metavar="PORT", help="the port it arrives at, name or OpenFlow number")
    p.add_argument("--eth-dst", required=True, metavar="MAC", help="the MAC address it is sent to: the first router's")
    p.add_argument("--dst", required=True, metavar="ADDRESS", help="destination, IPv4 or IPv6")
    p.add_argument("--eth-src", metavar="MAC", help="its sender's MAC address (default: nobody's)")
    p.add_argument("--ttl", type=int, help="TTL or hop limit (default 64)")
    p.add_argument("--length", type=int, metavar="BYTES", help="length of the IP packet (default 84)")
    _connection_options(p.add_argument_group("connection"))
    p.epilog = "example:\n  fsctl walk br-a --in-port vifA --eth-dst 02:00:00:00:01:01 --dst 10.0.2.5"
