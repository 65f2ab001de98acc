"""The words of the field, as values. All are frozen, slotted, and valid once built.

`addresses`, `ip_protocols`, `prefix_keys`; `delegations` and a router's `fib`; `network` (bridges, routers,
interfaces); `packet`; `martians`.
"""
