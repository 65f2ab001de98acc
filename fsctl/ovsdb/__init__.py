"""Bridges, ports and patch links in Open vSwitch's database: what is there, and what fsctl keeps there.

Column and table names are those of ovs-vswitchd.conf.db(5). `rows` and `schema` are the part of the database that fsctl
reads; `view` (with `admission`) turns it into an `OvsdbView`; `settings`, `links` and `release` compare it with what is
wanted (`wanted`), `plan` collects their changes (`edits`); `marks` are names and values of fsctl's rows; `ledger` counts
and paces the changes; `connection` talks to ovsdb-server; `worker` runs the steps.

What fsctl adds carries `external_ids:fsctl` and `external_ids:fsctl-owner`; no other row is removed.
"""

from fsctl.ovsdb.connection import default_remote
from fsctl.ovsdb.marks import INACTIVITY_PROBE_MS, LINK_TAG, OWNER, link_name
from fsctl.ovsdb.plan import LINK_LINGER_S
from fsctl.ovsdb.worker import OvsdbLinks

__all__ = ["INACTIVITY_PROBE_MS", "LINK_LINGER_S", "LINK_TAG", "OWNER", "OvsdbLinks", "default_remote", "link_name"]
