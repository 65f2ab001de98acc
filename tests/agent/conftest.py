"""A router with its agent, and an exchange driven by hand, for the tests of this directory."""

from __future__ import annotations

from .guest import guest
from .sync_world import world

__all__ = ["guest", "world"]
