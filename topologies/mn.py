"""All of Mininet that the labs use, imported in one place, because importing it has an effect on everybody.

Mininet makes its own logger class that of every logger created later, other libraries' too, and prints what
they log. That is undone here.
"""

from __future__ import annotations

import logging

import mininet.log
from mininet.link import Link
from mininet.net import Mininet
from mininet.node import Host, Switch
from mininet.topo import Topo

logging.setLoggerClass(logging.Logger)
mininet.log.setLogLevel("warning")

__all__ = ["Host", "Link", "Mininet", "Switch", "Topo"]
