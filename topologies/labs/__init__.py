"""Whole hosts in a box: the same chain of routers as QEMU virtual machines, and as domUs on a real Xen."""
