"""The command line: `fsctl serve | status | flows | orphans | rules | walk | token | demo`."""

from __future__ import annotations

from fsctl.cli.main import main

__all__ = ["main"]
