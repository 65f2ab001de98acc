"""fsctl: bypass virtual routers with collapsed Open vSwitch rules."""

__version__ = "0.1.0"
