"""Measuring between two guests: packets per second, TCP throughput, round-trip time."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

from topologies.nodes import Guest
from topologies.processes import LabError

BLAST = str(Path(__file__).with_name("blast.py"))
MINIMUM_UDP_PAYLOAD = 18
"""Makes a 64-byte Ethernet frame: 14 + 20 (IPv4) + 8 (UDP) + 18 + 4 (FCS)."""
PORT = 5201


def udp_rate(sender: Guest, receiver: Guest, address: str, seconds: float, payload: int = MINIMUM_UDP_PAYLOAD) -> float:
    """Packets per second that reach `receiver`, with a checksum that is right, while `sender` sends all it can."""
    sink = subprocess.Popen(
        receiver.inside(sys.executable, BLAST, "receive", str(PORT), str(seconds)), stdout=subprocess.PIPE, text=True
    )
    try:
        assert sink.stdout is not None
        # "ready" once its socket is bound: else the first packets would be answered by ICMP.
        if sink.stdout.readline().strip() != "ready":
            raise LabError("the UDP receiver did not start")
        sender.execute(sys.executable, BLAST, "send", address, str(PORT), str(seconds + 1.0), str(payload))
        answer, _ = sink.communicate(timeout=seconds + 20)
        return float(answer)
    finally:
        sink.kill()
        sink.wait()


def tcp_throughput(sender: Guest, receiver: Guest, address: str, seconds: float) -> float:
    """Bits per second of one TCP connection, as the receiver counts them (iperf3)."""
    server = subprocess.Popen(
        receiver.inside("iperf3", "--server", "--one-off", "--port", str(PORT), "--forceflush"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        while "listening" not in (line := server.stdout.readline()):
            if not line:
                raise LabError("iperf3's server did not start")
        answer = sender.execute(
            "iperf3", "--client", address, "--port", str(PORT), "--time", str(int(seconds)), "--json", timeout_s=seconds + 30
        )
        return float(json.loads(answer)["end"]["sum_received"]["bits_per_second"])
    finally:
        server.kill()
        server.communicate()


def round_trip_ms(sender: Guest, address: str, count: int = 100) -> float:
    """Median round-trip time of `count` pings, 5 ms apart, after one that does not count."""
    sender.execute("ping", "-n", "-c", "1", "-W", "2", address)
    answer = sender.execute("ping", "-n", "-c", str(count), "-i", "0.005", address)
    times = [float(text) for text in re.findall(r" time=([\d.]+) ms", answer)]
    if not times:
        raise LabError(f"no round-trip time in: {answer}")
    return statistics.median(times)


def trace(sender: Guest, address: str) -> list[str]:
    """The routers and the destination that traceroute(8) shows; "*" for one that kept silent."""
    answer = sender.execute("traceroute", "-n", "-q", "1", "-w", "2", "-N", "1", "-m", "16", address)
    return [line.split()[1] for line in answer.splitlines()[1:]]
