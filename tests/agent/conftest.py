"""A router with its agent, for the tests of this directory."""

from __future__ import annotations

from .guest import guest

__all__ = ["guest"]
