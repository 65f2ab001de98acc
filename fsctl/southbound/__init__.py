"""One connected switch, over a Ryu datapath: bundles, dumps, counters, errors by xid.

What the Ryu application does:

    switch = Southbound(datapath)      # when the datapath enters MAIN_DISPATCHER; takes its replies from then on
    switch.close()                     # when it enters DEAD_DISPATCHER: whoever waits gets UnavailableError

Nothing is to be forwarded: replies are picked out before Ryu parses them (`replies`), and everything
that fsctl did not ask for goes Ryu's usual way, to all applications.
"""

from fsctl.southbound.replies import bridge_name
from fsctl.southbound.switch import Southbound

__all__ = ["Southbound", "bridge_name"]
