"""The only JSON <-> model code.

`text` reads strict JSON, `flows` delegations, `packets` the packet of a walk, `bodies` whole requests;
`answers` and `rules` write what the controller knows.
"""
