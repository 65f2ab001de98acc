"""One connected switch, over a Ryu datapath: bundles, dumps, counters, errors by xid.

What the Ryu application does:

    switch = Southbound(datapath)      # when the datapath enters MAIN_DISPATCHER; takes its replies from then on
    switch.close()                     # when it enters DEAD_DISPATCHER: calls under way raise UnavailableError

The application forwards no events: `replies` takes fsctl's replies before Ryu parses them, and all other
messages go to Ryu's applications as usual.
"""

from fsctl.southbound.replies import bridge_name
from fsctl.southbound.switch import Southbound

__all__ = ["Southbound", "bridge_name"]
