"""Collapse: a network's walks, compiled to one effect per interface, class of senders, and prefix or connection. Pure.

`effects` and `node` are the values; `nodes`, `places` and `graph` say where walks go; `sweep` finds where an effect
differs; `cuts` keeps tables from multiplying; `compiler` puts them together, and recompiles what a change concerns.
"""
