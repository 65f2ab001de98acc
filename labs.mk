# The labs: whole hosts in a box. Included by the Makefile; PYTHON is its virtual environment's.
LAB_PACKAGES := qemu-system-x86 qemu-utils mmdebstrap busybox-static cpio lz4 kmod e2fsprogs gcc libc6-dev curl openvswitch-switch

.PHONY: lab-packages xen-lab xen-lab-quick vm-lab vm-lab-quick test-xen test-vm

lab-packages:
	@tools/lab-packages.sh $(LAB_PACKAGES)

vm-lab: root setup lab-packages
	@$(PYTHON) -m topologies.labs.vm --docs

# One size of each, one round: under two minutes once the snapshot is in the cache.
vm-lab-quick: root setup lab-packages
	@$(PYTHON) -m topologies.labs.vm --quick

xen-lab: root setup lab-packages
	@$(PYTHON) -m topologies.labs.xen --docs

# One router, one size of each: two minutes once the snapshot is in the cache.
xen-lab-quick: root setup lab-packages
	@$(PYTHON) -m topologies.labs.xen --quick

test-xen: root setup lab-packages
	@$(PYTHON) -m pytest -m xen tests/xen --timeout=3600 $(PYTEST_ARGS)

test-vm: root setup lab-packages
	@$(PYTHON) -m pytest -m vm tests/vm --timeout=900 $(PYTEST_ARGS)
