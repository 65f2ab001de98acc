"""Where the agent learns what it needs: flags, then the environment, then a file, then xenstore.

URL, router name and token are all it must know. The file has one `key = value` per line; `#` begins a comment.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fsctl.agent import xenstore
from fsctl.agent.safety import ALLOWABLE
from fsctl.errors import ConfigError

CONFIG_FILE = Path("/etc/fsctl/agent.conf")
RUN_DIR = Path("/run/fsctl-agent")
KEYS = ("url", "router", "token", "token_file", "ca_file", "lease", "graceful_restart", "allow", "run_dir")
TOKENS = {"token", "token_file"}
ENVIRONMENT = {f"FSCTL_{key.upper()}": key for key in KEYS}
MIN_LEASE_S, MAX_LEASE_S, MAX_GRACE_S = 1.0, 3600.0, 3600.0
_WHERE = "flags, environment, file or xenstore"


@dataclass(frozen=True, slots=True)
class Config:
    """All that the agent is told. Durations in seconds."""

    url: str
    router: str
    token: str
    ca_file: str | None = None
    lease_s: float = 10.0
    grace_s: float = 0.0
    allow: frozenset[str] = frozenset()
    run_dir: Path = RUN_DIR


def load(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
    xen: Callable[[], Mapping[str, str]] = xenstore.provisioned,
) -> Config:
    """The configuration; raises ConfigError naming where a value came from, UnavailableError from xenstore.

    `file` None: the usual place, where it need not exist.
    """
    found = told(flags, environment, file)
    if not {"url", "router"} <= found.keys() or not found.keys() & TOKENS:
        _add(found, {key: (value, "xenstore") for key, value in xen().items()})
    return _config(found)


def told(
    flags: Mapping[str, str | None], environment: Mapping[str, str] | None = None, file: Path | None = None
) -> dict[str, tuple[str, str]]:
    """Key -> (value, where it comes from), of flags, environment and file; xenstore is not asked. Raises ConfigError."""
    environment = os.environ if environment is None else environment
    found = {key: (value, f"--{key.replace('_', '-')}") for key, value in flags.items() if value is not None}
    _add(found, {key: (environment[name], name) for name, key in ENVIRONMENT.items() if name in environment})
    if file is not None or CONFIG_FILE.exists():
        path = file or CONFIG_FILE
        _add(found, {key: (value, str(path)) for key, value in read_file(path).items()})
    return found


def _add(found: dict[str, tuple[str, str]], source: Mapping[str, tuple[str, str]]) -> None:
    """What earlier sources have not said; a token and a file that holds it are the same thing."""
    has_token = bool(found.keys() & TOKENS)
    for key, value in source.items():
        if not (has_token and key in TOKENS):
            found.setdefault(key, value)


def read_file(path: Path) -> dict[str, str]:
    """`key = value` lines; raises ConfigError."""
    try:
        lines = path.read_text().splitlines()
    except OSError as e:
        raise ConfigError(str(path), f"cannot be read: {e.strerror}") from e
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or key not in KEYS:
            raise ConfigError(
                str(path), f"expected one of {', '.join(KEYS)}, then = and a value", field=f"line {number}", value=line
            )
        found[key] = value
    return found


def _config(found: Mapping[str, tuple[str, str]]) -> Config:
    def get(key: str) -> str:
        value, where = found.get(key, ("", _WHERE))
        if not value:
            raise ConfigError(where, "missing", field=key)
        return value

    token = found["token"][0] if "token" in found else _token(*found["token_file"]) if "token_file" in found else ""
    if not token:
        raise ConfigError(_WHERE, "missing", field="token or token_file")
    allow = frozenset(filter(None, (word.strip() for word in found.get("allow", ("", ""))[0].split(","))))
    if allow - ALLOWABLE.keys():
        known = ", ".join(ALLOWABLE)
        raise ConfigError(found["allow"][1], f"expected some of {known}", field="allow", value=", ".join(sorted(allow)))
    return Config(
        get("url"),
        get("router"),
        token,
        found["ca_file"][0] if "ca_file" in found else None,
        _seconds(found, "lease", 10.0, MIN_LEASE_S, MAX_LEASE_S),
        _seconds(found, "graceful_restart", 0.0, 0.0, MAX_GRACE_S),
        allow,
        Path(found["run_dir"][0]) if "run_dir" in found else RUN_DIR,
    )


def _token(path: str, where: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as e:
        raise ConfigError(where, f"cannot be read: {e.strerror}", field="token_file", value=path) from e


def _seconds(found: Mapping[str, tuple[str, str]], key: str, default: float, low: float, high: float) -> float:
    text, where = found.get(key, (str(default), ""))
    try:
        value = float(text.strip().removesuffix("s"))
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ConfigError(where, f"expected {low:g} to {high:g} seconds", field=key, value=text)
    return value


def session_id(run_dir: Path) -> str:
    """This guest's session, remembered until it reboots: an agent that crashed takes its own session up again.

    Raises ConfigError if it cannot be kept.
    """
    path = run_dir / "session"
    try:
        run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.exists() and (known := path.read_text().strip()):
            return known
        made = secrets.token_hex(16)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(made + "\n")
    except OSError as e:
        raise ConfigError(str(path), f"cannot be kept: {e.strerror}", field="run_dir", value=str(run_dir)) from e
    return made
