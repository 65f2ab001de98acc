"""The chain as paravirtual domUs on a real Xen host, which runs inside QEMU's emulation."""
