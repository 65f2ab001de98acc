"""The tables of a bridge (docs/pipeline.md): effects in, OpenFlow rules out. Pure.

`fixed_rules` follow from the network, `flow_rules` from effects, `stop_rules` end a bypass at once; `rewrites` are the
numbered ways out; `layout` holds all tables; `diff` orders changes; `dependents` are hindered by a rejected rule.
"""
