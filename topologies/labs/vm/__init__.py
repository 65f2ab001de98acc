"""The chain as plain QEMU virtual machines on TAPs, with Open vSwitch's userspace datapath."""
