"""fsctl-agent: runs in a router guest and keeps the router's FIB in fsctl equal to what its kernel would do.

Nothing here imports Ryu, eventlet or OVS, nor anything above `fsctl.client`: it installs in a guest on its own.
"""
