"""The implementations of the commands."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import runpy
import secrets
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fsctl import config
from fsctl.cli import show
from fsctl.cli.output import Output
from fsctl.client import DEFAULT_URL, Client, WriteAnswer
from fsctl.errors import ForbiddenError, InvalidError, MalformedError, UnavailableError
from fsctl.schema.text import loads

_Command = Callable[[argparse.Namespace, Mapping[str, str], Output], int]
_TOKEN_BYTES = 32
_FLOW_OPTIONS = ("in_port", "dst", "eth_src", "src", "proto", "sport", "dport", "out", "eth_dst", "action")
_PROTOCOLS = {"tcp": 6, "udp": 17}


def run(args: argparse.Namespace, environment: Mapping[str, str], output: Output) -> int:
    """The command that `args.run` names; returns the exit code. Raises FsctlError."""
    return _COMMANDS[args.run](args, environment, output)


def _client(args: argparse.Namespace, environment: Mapping[str, str]) -> Client:
    token = environment.get("FSCTL_TOKEN") or None
    file = args.token_file or (None if token else environment.get("FSCTL_TOKEN_FILE"))
    if file:
        token = next(iter(_read(file).decode("utf-8", "replace").split()), None)
        if token is None:
            raise InvalidError("expected a token in this file, it is empty", field="token file", value=file)
    url = args.url or environment.get("FSCTL_URL") or DEFAULT_URL
    return Client(url, token, ca_file=args.ca_file or environment.get("FSCTL_CA_FILE") or None)


def _read(name: str) -> bytes:
    """A file, or standard input for "-"; raises InvalidError."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as e:
        raise InvalidError(f"the file cannot be read: {e.strerror}", field="file", value=name) from e


# --- serve, token, demo ------------------------------------------------------------------------------


def _serve(args: argparse.Namespace, environment: Mapping[str, str], _output: Output) -> int:
    path = Path(args.config) if args.config else config.path_from(environment)
    config.load(path)  # checked here, an error is not buried in Ryu's log
    missing = [name for name in ("ryu", "eventlet", "falcon", "ovs") if importlib.util.find_spec(name) is None]
    if missing:
        raise UnavailableError(f"the controller is not installed here (no {missing[0]}): pip install 'fsctl[controller]'")
    os.environ[config.ENVIRONMENT_KEY] = str(path)
    # The controller has the interpreter for itself: what the command line has loaded would be in its way.
    os.execv(sys.executable, [sys.executable, "-m", "fsctl.start", *args.passed_on])  # noqa: S606 - no shell


def _leave(args: argparse.Namespace, environment: Mapping[str, str], output: Output) -> int:
    with warnings.catch_warnings(action="ignore"):  # Open vSwitch's library looks for eventlet, which warns whoever does
        from fsctl.cli.leave import leave  # noqa: PLC0415 - the controller's packages are not everywhere

    return leave(config.load(Path(args.config) if args.config else config.path_from(environment)), output)


def _token(args: argparse.Namespace, _environment: Mapping[str, str], output: Output) -> int:
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    if args.write:
        _write_secret(Path(args.write), token)
    if output.as_json:
        output.json({"sha256": digest} | ({"file": args.write} if args.write else {"token": token}))
        return 0
    output.line(f"file:    {args.write}" if args.write else f"token:   {token}")
    output.line(f"sha256:  {digest}")
    output.note("the token goes to its owner (FSCTL_TOKEN_FILE), the sha256 into the configuration (token_sha256)")
    return 0


def _write_secret(path: Path, text: str) -> None:
    """Into a file that is not there yet, readable by its owner alone; raises InvalidError."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
    except OSError as e:
        raise InvalidError(f"the token cannot be written: {e.strerror}", field="--write", value=str(path)) from e


def _demo(args: argparse.Namespace, _environment: Mapping[str, str], _output: Output) -> int:
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "topologies").is_dir() and str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    if importlib.util.find_spec("topologies") is None:
        raise UnavailableError("the demo comes with the source, not with the package: run `sudo make demo` in a checkout")
    sys.argv = ["fsctl demo", *args.passed_on, *(["--json"] if args.json else [])]
    runpy.run_module("topologies.demo", run_name="__main__", alter_sys=False)
    return 0


# --- status, rules, walk -----------------------------------------------------------------------------


def _status(args: argparse.Namespace, environment: Mapping[str, str], output: Output) -> int:
    with _client(args, environment) as client:
        reasons = client.not_ready()
        routers = client.routers()
        try:
            bridges, notices = client.bridges(), client.notices()
            orphans = client.orphans(with_flows=False)
        except ForbiddenError:
            bridges, notices, orphans = None, [], []  # a router's token: it sees itself
    if output.as_json:
        state = {"ready": not reasons, "reasons": reasons, "notices": notices}
        output.json(state | {"routers": routers, "bridges": bridges, "orphans": orphans})
    else:
        show.status(output, [f"not ready: {reason}" for reason in reasons], notices, routers, bridges)
        show.orphans_line(output, orphans)
    return 0


def _orphans(args: argparse.Namespace, environment: Mapping[str, str], output: Output) -> int:
    with _client(args, environment) as client:
        orphans = client.orphans()
    if output.as_json:
        output.json({"orphans": orphans})
    else:
        show.orphans(output, orphans)
    return 0


def _rules(args: argparse.Namespace, environment: Mapping[str, str], output: Output) -> int:
    with _client(args, environment) as client:
        rules = client.rules(args.bridge)
    if output.as_json:
        output.json({"rules": rules})
    else:
        show.rules(output, rules)
    return 0


def _walk(args: argparse.Namespace, environment: Mapping[str, str], output: Output) -> int:
    in_port = int(args.in_port) if args.in_port.isdecimal() else args.in_port
    packet = {"bridge": args.bridge, "in_port": in_port, "eth_dst": args.eth_dst, **_addresses(args)}
    packet |= {name: value for name in ("eth_src", "ttl", "length") if (value := getattr(args, name)) is not None}
    with _client(args, environment) as client:
        report = client.walk(packet)
    if output.as_json:
        output.json(report)
    else:
        show.walk(output, packet, report)
    return 0


def _router_forget(args: argparse.Namespace, environment: Mapping[str, str], output: Output) -> int:
    with _client(args, environment) as client:
        client.forget_router(args.router)
    output.note(f"what was kept aside of {args.router} is deleted")
    return 0


# --- flows -------------------------------------------------------------------------------------------


def _flows_list(args: argparse.Namespace, environment: Mapping[str, str], output: Output) -> int:
    with _client(args, environment) as client:
        flows = client.flows(args.router, args.state)
    if output.as_json:
        output.json({"flows": flows})
    else:
        show.flows(output, flows)
    return 0


def _flows_put(args: argparse.Namespace, environment: Mapping[str, str], output: Output) -> int:
    flows = _flows_of(args.file)
    with _client(args, environment) as client:
        return _written(output, client.put_flows(args.router, flows, wait=args.wait))


def _flows_add(args: argparse.Namespace, environment: Mapping[str, str], output: Output) -> int:
    given = [name for name in _FLOW_OPTIONS if getattr(args, name) is not None]
    if args.file is not None and given:
        raise InvalidError("expected --file or a flow's options, not both", field="--file", value=args.file)
    flows = [_flow(args)] if args.file is None else _flows_of(args.file)
    with _client(args, environment) as client:
        return _written(output, client.patch_flows(args.router, add=flows, wait=args.wait))


def _flows_remove(args: argparse.Namespace, environment: Mapping[str, str], output: Output) -> int:
    if args.all and (args.in_port or args.dst):
        raise InvalidError("expected --all or a match, not both", field="--all")
    with _client(args, environment) as client:
        if args.all:
            return _written(output, client.delete_flows(args.router, wait=args.wait))
        return _written(output, client.patch_flows(args.router, remove=[_match(args)], wait=args.wait))


def _flow(args: argparse.Namespace) -> dict[str, Any]:
    action = args.action or "forward"
    flow: dict[str, Any] = {"match": _match(args), "action": action}
    if action != "forward" and (args.out or args.eth_dst):
        raise InvalidError(f"only forward takes --out and --eth-dst, not {action}", field="--action", value=action)
    if action == "forward":
        if not args.out or not args.eth_dst:
            raise InvalidError("a forward needs --out INTERFACE and --eth-dst MAC", field="--action", value=action)
        flow |= {"set": {"eth_dst": args.eth_dst}, "out": args.out}
    return flow


def _match(args: argparse.Namespace) -> dict[str, Any]:
    if not args.in_port or not args.dst:
        raise InvalidError("expected --in INTERFACE and --dst PREFIX", field="match")
    match: dict[str, Any] = {"in": args.in_port, **_addresses(args)}
    return match | ({"eth_src": args.eth_src} if args.eth_src else {})


def _addresses(args: argparse.Namespace) -> dict[str, Any]:
    """Destination, and what names a connection, under their OXM names."""
    family = "ipv6" if ":" in args.dst else "ipv4"
    fields: dict[str, Any] = {f"{family}_dst": args.dst}
    if args.src:
        fields[f"{family}_src"] = args.src
    if args.proto:
        fields["ip_proto"] = _PROTOCOLS[args.proto]
    for port, name in ((args.sport, "src"), (args.dport, "dst")):
        if port is not None:
            if not args.proto:
                raise InvalidError("ports need --proto tcp or --proto udp", field="--proto")
            fields[f"{args.proto}_{name}"] = port
    return fields


def _flows_of(name: str) -> list[dict[str, Any]]:
    """The flows of a file, without the status that `flows list --json` prints beside them."""
    try:
        value = loads(_read(name))
    except MalformedError as e:
        raise MalformedError(f"{name}: {e.detail}", field=e.field, value=e.value) from e
    flows = value.get("flows") if isinstance(value, dict) else value
    if not isinstance(flows, list):
        raise InvalidError('expected {"flows": [...]} or [...]', field=name, value=value)
    return [{k: v for k, v in flow.items() if k != "status"} if isinstance(flow, dict) else flow for flow in flows]


def _written(output: Output, answer: WriteAnswer) -> int:
    """Show what a write did; 1 if a switch rejected a rule of it."""
    if output.as_json:
        output.json(answer)
    else:
        show.written(output, answer)
    return 1 if answer["failed"] else 0


_COMMANDS: dict[str, _Command] = {
    "serve": _serve,
    "leave": _leave,
    "token": _token,
    "demo": _demo,
    "status": _status,
    "orphans": _orphans,
    "router_forget": _router_forget,
    "rules": _rules,
    "walk": _walk,
    "flows_list": _flows_list,
    "flows_put": _flows_put,
    "flows_add": _flows_add,
    "flows_remove": _flows_remove,
}
