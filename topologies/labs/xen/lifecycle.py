"""What becomes of a router's flows when its domain dies, stops, restarts or grows: seen on real Xen.

Times are dom0's own (virtual under icount) and end when Open vSwitch has no rule left, or has it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from topologies.labs.fsctl_setup import introduce
from topologies.labs.plan import SPARE, Guest, Nic, destination, way_back
from topologies.labs.remote import LabError
from topologies.labs.xen.lab import XenLab, vif

FLOW_SWITCH_TABLE = 1
AGAIN_S = 300.0
WITHDRAW_S = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    """What was done to a router, and how long its flows took to follow."""

    what: str
    seconds: float
    seen: str


def _seconds_until_withdrawn(lab: XenLab, command: str, mac: str) -> float:
    """dom0 seconds from `command` until no flow switch rule of br-a matches the router's MAC; LabError after a minute."""
    dump = f"ovs-ofctl -O OpenFlow14 dump-flows br-a table={FLOW_SWITCH_TABLE} | grep -c dl_dst={mac}"
    script = f"""
now() {{ cut -d' ' -f1 /proc/uptime; }}
start=$(now)
{command} || exit 1
for i in $(seq 600); do
    if [ "$({dump})" = 0 ]; then echo WITHDRAWN $start $(now); exit 0; fi
    sleep 0.1
done
{dump}; exit 1"""
    words = lab.station.run(script, WITHDRAW_S * 3).split()
    start, end = (float(w) for w in words[words.index("WITHDRAWN") + 1 :][:2])
    return end - start


def _uptime(lab: XenLab) -> float:
    return float(lab.station.run("cut -d' ' -f1 /proc/uptime"))


def _reachable(lab: XenLab, chain: int) -> None:
    lab.on(lab.plan.nodeb, way_back(chain))
    lab.on(lab.plan.nodea, f"ping -c 3 -q {destination(chain)}")


def _bypassed_again(lab: XenLab, start: float) -> float:
    introduce(lab.station, lab.plan)
    lab.fsctl.wait_for_bypass(True, AGAIN_S)
    return _uptime(lab) - start


def destroyed(lab: XenLab) -> Event:
    """`xl destroy`: withdrawn at once; created again it delegates again, from ports of other names."""
    vr1 = lab.plan.routers[0]
    took = _seconds_until_withdrawn(lab, "xl destroy vr1", vr1.nics[0].mac)
    start = _uptime(lab)
    lab.create(vr1)
    lab.wait_for(vr1)
    back = _bypassed_again(lab, start)
    return Event("xl destroy, xl create", took, f"bypassed again {back:.1f} s after xl create, in domain {lab.domain_id(vr1)}")


def paused(lab: XenLab) -> Event:
    """`xl pause`: the agent's heartbeats stop, the lease ends; after `xl unpause` it delegates again."""
    took = _seconds_until_withdrawn(lab, "xl pause vr1", lab.plan.routers[0].nics[0].mac)
    start = _uptime(lab)
    lab.station.run("xl unpause vr1")
    return Event("xl pause, xl unpause", took, f"bypassed again {_bypassed_again(lab, start):.1f} s after xl unpause")


def rebooted(lab: XenLab) -> Event:
    """`xl reboot`: the guest comes back with a new domain id, is provisioned anew and delegates again."""
    vr1 = lab.plan.routers[0]
    before = lab.domain_id(vr1)
    start = _uptime(lab)
    took = _seconds_until_withdrawn(lab, "xl reboot vr1", vr1.nics[0].mac)
    lab.station.until(f'd=$(xl domid vr1 2>/dev/null) && [ -n "$d" ] && [ "$d" != {before} ] && echo is $d', "is ", AGAIN_S)
    lab.wait_for(vr1)
    back = _bypassed_again(lab, start)
    return Event("xl reboot", took, f"domain {before} became {lab.domain_id(vr1)}, bypassed again after {back:.1f} s")


def hot_plugged(lab: XenLab) -> Event:
    """`xl network-attach`: vr1 gets a foot on the last bridge, and with it a chain of one where three were."""
    vr1, last = lab.plan.routers[0], lab.plan.length
    start = _uptime(lab)
    lab.station.run(f"xl network-attach vr1 {vif(SPARE).replace(',', ' ')}")
    lab.on(vr1, _name_and_address(SPARE))
    lab.on(vr1, f"ip route del 10.0.{last + 1}.0/24 via 10.0.2.254; ping -c 2 -q {destination(last)}")
    lab.on(lab.plan.nodeb, f"ip route replace 10.0.1.0/24 via {SPARE.address.split('/')[0]}; ping -c 2 -q 10.0.1.2")
    _wait_for_hops(lab, last, 1)
    took = _uptime(lab) - start
    lab.on(lab.plan.nodea, f"ping -c 3 -q {destination(last)}")
    device = lab.station.run("xl network-list vr1 | awk -v m=" + SPARE.mac + " '$3 == m {print $1}'").strip()
    lab.station.run(f"xl network-detach vr1 {device}")
    lab.on(vr1, f"ip route replace 10.0.{last + 1}.0/24 via 10.0.2.254")
    lab.fsctl.wait_for_bypass(True, AGAIN_S)
    _reachable(lab, last)
    return Event("xl network-attach, network-detach", took, f"chain of {last} became 1 router, and {last} again")


def _name_and_address(nic: Nic) -> str:
    return (
        f"for i in $(seq 50); do card=$(grep -l {nic.mac} /sys/class/net/*/address) && break; sleep 0.2; done; "
        f"card=${{card%/address}}; card=${{card##*/}}; [ $card = {nic.name} ] || ip link set dev $card name {nic.name}; "
        f"ip addr replace {nic.address} dev {nic.name}; ip link set {nic.name} up"
    )


def _wait_for_hops(lab: XenLab, chain: int, hops: int) -> None:
    for _ in range(150):
        if lab.fsctl.bypassed_hops(chain) == hops:
            return
        lab.station.run("sleep 0.5")
    raise LabError(f"{destination(chain)} is {lab.fsctl.bypassed_hops(chain)} hops away, not {hops}")


def port_number_reused(lab: XenLab) -> Event:
    """vr1 gone, another guest gets its OpenFlow port number: nothing of vr1's is left there, and its return is no trouble."""
    vr1 = lab.plan.routers[0]
    number = lab.fsctl.ofport_of(vr1.nics[0])
    took = _seconds_until_withdrawn(lab, "xl destroy vr1", vr1.nics[0].mac)
    other = _other_guest(lab)
    lab.create(other)
    lab.wait_for(other)
    vif_name = f"vif{lab.domain_id(other)}.0"
    lab.station.run(f"ovs-vsctl --timeout=20 set interface {vif_name} ofport_request={number}")
    lab.station.until(f"ovs-vsctl get interface {vif_name} ofport", str(number), 30)
    left = lab.station.run(f"ovs-ofctl -O OpenFlow14 dump-flows br-a | grep -E 'in_port=({vif_name}|{number}),' || true")
    if left.strip():
        raise LabError(f"rules for the port number of a guest that is gone: {left}")
    lab.on(lab.plan.nodea, "ping -c 3 -q 10.0.1.77")
    start = _uptime(lab)
    lab.create(vr1)
    lab.wait_for(vr1)
    back = _bypassed_again(lab, start)
    lab.destroy(other)
    seen = f"the other guest answers; vr1 bypassed again {back:.1f} s after xl create"
    return Event(f"port number {number} given to another guest", took, seen)


def _other_guest(lab: XenLab) -> Guest:
    data = Nic("eth0", "br-a", "00:16:3e:00:4d:00", "10.0.1.77/24")
    mgmt = replace(lab.plan.nodea.nics[-1], mac="00:16:3e:ff:00:4d", address="10.99.0.77/24")
    return Guest("other", (data, mgmt), "10.99.0.77")


EVENTS: tuple[Callable[[XenLab], Event], ...] = (destroyed, paused, rebooted, hot_plugged, port_number_reused)
