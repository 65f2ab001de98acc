"""Entry point: arguments in, exit code out; every error says what to do next."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fsctl.cli import commands
from fsctl.cli.output import Output
from fsctl.cli.parser import parse
from fsctl.client import UnreachableError
from fsctl.errors import ConfigError, ForbiddenError, FsctlError, NotFoundError, StoreError, UnauthorizedError

OK, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3
"""Exit codes; argparse itself ends with USAGE."""

_HINTS: tuple[tuple[type[FsctlError], str], ...] = (
    (UnreachableError, "is fsctl running there? `fsctl serve --config FILE` starts it; --url or FSCTL_URL says where it is"),
    (UnauthorizedError, "set FSCTL_TOKEN_FILE (or FSCTL_TOKEN) to a token that the configuration knows; `fsctl token` makes one"),
    (ForbiddenError, "use the administrator's token, or the token of that router"),
    (NotFoundError, "`fsctl status` lists routers, interfaces and bridges"),
    (ConfigError, "correct the file and start again"),
    (StoreError, "see `store:` in the configuration"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 refused or failed, 2 usage, 3 nobody answers)."""
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        return commands.run(args, os.environ, Output(as_json=args.json))
    except FsctlError as e:
        print(f"fsctl: error: {e}", file=sys.stderr)
        hint = next((hint for kind, hint in _HINTS if isinstance(e, kind)), None)
        if "CERTIFICATE_VERIFY_FAILED" in e.detail:
            hint = "--ca-file FILE or FSCTL_CA_FILE names the certificate (PEM) to trust"
        if hint:
            print(f"fsctl: hint: {hint}", file=sys.stderr)
        return UNREACHABLE if isinstance(e, UnreachableError) else FAILED
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return 128 + 2  # as a shell reports SIGINT
