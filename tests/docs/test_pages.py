"""README, docs/operations.md and docs/agent.md: their commands are run as they stand, in order, on a machine made for it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest

from tests.waiting import eventually
from topologies.sandbox import available

from .machine import Machine
from .pages import ROOT, Block, blocks, to_run, yaml_of

PAGES = ("README.md", "docs/operations.md", "docs/agent.md", "docs/xen.md")
REST = "http://192.0.2.1:8080"
READY = f"sleep 0.2; curl -sf {REST}/readyz"
"""Not too often: who has no token is served so many times a second only."""
MACS = {"vif1.0": "02:00:00:00:01:01", "vif1.1": "02:00:00:00:01:02"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
pytestmark = [pytest.mark.ovs, needs_root, pytest.mark.skipif(not available(), reason="Open vSwitch is not installed")]


@pytest.fixture
def machine() -> Iterator[Machine]:
    """dom0 of the pages: two bridges with a router's two ports, and the address of the management network."""
    made = Machine()
    try:
        made.start()
        made.run("ip addr add 192.0.2.1/32 dev lo")
        for bridge, (port, mac) in zip(("br-a", "br-b"), MACS.items(), strict=True):
            made.ovs.vsctl("add-br", bridge, "--", "add-port", bridge, port, "--", "set", "interface", port, "type=dummy",
                           f'external-ids:attached-mac="{mac}"')  # fmt: skip
        yield made
    finally:
        made.stop()


def configured(page: str, *digests: str) -> str:
    """A page's configuration, with the digests of tokens in the places that it leaves open; it must be complete otherwise."""
    text, rest = yaml_of(page), iter(digests)
    text = re.sub(r"(sha256: )[0-9a-f]*\.\.\.", lambda found: found[1] + next(rest), text)
    assert next(rest, None) is None, "a place for each"
    return text


def token(machine: Machine, fsctl: str, path: str) -> str:
    """Make a token, as the pages say; its digest."""
    found = re.search(r"[0-9a-f]{64}", machine.run(f"{fsctl} token --write {path}"))
    assert found
    return found[0]


def run(machine: Machine, block: Block, *, online: bool = False, **names: str) -> None:
    """A block, its placeholders replaced; what it prints must be what the page shows."""
    for written, shown in block.commands():
        command = written
        for placeholder, value in {"/path/to/fsctl": str(ROOT), **names}.items():
            command = command.replace(placeholder, value)
        said = machine.run(command, online=online)
        assert not shown or said == shown, command


def serve(machine: Machine, block: Block) -> None:
    """Each command of a block serves until it is ended."""
    for command, _ in block.commands():
        machine.serve(command.partition(" #")[0], READY)
        assert not machine.succeeds(READY)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_commands_is_marked(page: str) -> None:
    """So that none is passed over: those in which nothing tells that they are commands are not run."""
    text = (ROOT / page).read_text()
    plain = re.findall(r"^    (?:sudo|apt|pip|systemctl|ovs-vsctl|fsctl|export|ln|install|cat >) .*", text, re.MULTILINE)
    assert plain == []
    assert blocks(page)


@pytest.mark.timeout(240)
def test_operations(machine: Machine) -> None:
    install, running, service, leave, bridge, links = to_run("docs/operations.md")
    machine.run("mkdir -p /etc/fsctl /var/lib/fsctl")
    pip = "\n".join(command for command, _ in install.commands())  # one shell: it exports something
    run(machine, Block("sh", pip), online=True)
    digests = [token(machine, "/opt/fsctl/bin/fsctl", f"/root/{name}") for name in ("admin", "vr1")]
    machine.write("/etc/fsctl/fsctl.yaml", configured("docs/operations.md", *digests))
    serve(machine, running)
    run(machine, service)
    eventually(lambda: machine.succeeds(READY), "the service answers")
    run(machine, leave)
    assert machine.ovs.vsctl("get-controller", "br-a") == ""
    run(machine, service)
    eventually(lambda: machine.succeeds(READY), "and again")
    machine.run("systemctl disable --now fsctl")
    for name in ("br-a", "br-b"):
        assert machine.ovs.vsctl("get-controller", name)
        run(machine, bridge, BRIDGE=name)
        assert machine.ovs.vsctl("get-controller", name) == ""
    run(machine, links)
    assert "fsctl=link" not in machine.ovs.vsctl("list", "port")


@pytest.mark.timeout(240)
def test_xen(machine: Machine) -> None:
    install, script, start, look = to_run("docs/xen.md")
    run(machine, install, online=True)
    machine.run("mkdir -p /etc/xen/scripts /etc/fsctl /var/lib/fsctl; ip addr add 10.99.0.1/32 dev lo")
    run(machine, script)
    digests = [token(machine, "fsctl", path) for path in ("/root/fsctl-admin.token", "/root/vr1.token")]
    machine.write("/etc/fsctl/fsctl.yaml", configured("docs/xen.md", *digests))
    serving, ready = start.text.splitlines()
    machine.run(f"setsid env {serving} >/root/fsctl.log 2>&1 &")
    eventually(lambda: machine.succeeds(f"sleep 0.2; {ready} | grep -q ready"), "it is ready")
    run(machine, look)


@pytest.mark.timeout(240)
def test_agent(machine: Machine) -> None:
    install, start, status = to_run("docs/agent.md")
    run(machine, install, online=True)
    digest = machine.run("tr -d '\\n' < /etc/fsctl/token | sha256sum | cut -d' ' -f1").strip()
    machine.write("/etc/fsctl/fsctl.yaml", configured("docs/operations.md", "0" * 64, digest))
    machine.run("mkdir -p /var/lib/fsctl; ip link add eth0 type veth peer name host0; ip link add eth1 type veth peer name host1")
    for name, mac in zip(("eth0", "eth1"), MACS.values(), strict=True):
        machine.run(f"ip link set {name} address {mac} up; ip link set {name.replace('eth', 'host')} up")
    machine.run(f"FSCTL_CONFIG=/etc/fsctl/fsctl.yaml setsid {ROOT}/.venv/bin/ryu-manager fsctl.app >/root/fsctl.log 2>&1 &")
    eventually(lambda: machine.succeeds(READY), "the controller is ready")
    run(machine, start)
    eventually(lambda: machine.succeeds("fsctl-agent status"), "the agent has begun")
    run(machine, status)
    eventually(lambda: "in step" in machine.run("fsctl-agent status"), "it has its session")
    assert "eth0 is eth0, eth1 is eth1" in machine.run("fsctl-agent status")


@pytest.mark.timeout(120)
def test_readme(machine: Machine) -> None:
    running, router = to_run("README.md")
    fsctl = f"{ROOT}/.venv/bin/fsctl"
    machine.run("mkdir -p /etc/fsctl /srv/fsctl; ln -s /srv/fsctl/fsctl.yaml /etc/fsctl/fsctl.yaml")
    digests = [token(machine, fsctl, path) for path in ("/root/admin", "/etc/fsctl/token")]
    machine.write("/srv/fsctl/fsctl.yaml", configured("README.md", *digests))
    here = f"{ROOT}/fsctl.yaml"
    for command, _ in running.commands():
        machine.serve(command.partition(" #")[0].replace("fsctl.yaml", "/srv/fsctl/fsctl.yaml"), READY)
    assert not os.path.exists(here)
    machine.run(f"FSCTL_CONFIG=/srv/fsctl/fsctl.yaml setsid {fsctl} serve >/root/fsctl.log 2>&1 &")
    eventually(lambda: machine.succeeds(READY), "the controller is ready")
    machine.run(f"ln -s {fsctl} /usr/local/bin/fsctl")
    run(machine, router)
    listed = machine.run(f"FSCTL_URL={REST} FSCTL_TOKEN_FILE=/etc/fsctl/token fsctl flows list vr1")
    assert "10.0.2.0/24" in listed
    assert "installed" in listed


def test_what_a_page_says_wrongly_is_found(machine: Machine) -> None:
    """The machine itself: a command that fails, and one that prints something else, are failures."""
    with pytest.raises(AssertionError):
        run(machine, Block("sh", "fsctl-agent --no-such-option\n"))
    with pytest.raises(AssertionError):
        run(machine, Block("console", "$ echo one\ntwo\n"))
    assert shutil.which("systemctl", path="/usr/local/sbin") is None, "what it stands in for is not replaced outside"
