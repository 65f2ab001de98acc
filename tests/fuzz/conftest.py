"""The controller on a private Open vSwitch, as in tests/faults."""

from tests.faults.conftest import host

__all__ = ["host"]
