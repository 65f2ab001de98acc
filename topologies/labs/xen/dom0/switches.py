#!/usr/bin/python3
"""Counts domain switches and wake-ups in a file of xentrace(8); runs in dom0, prints JSON.

Records are as Xen's xen/include/public/trace.h defines them: a 32-bit header (event in bits 0-27, number of
extra words in 28-30, a cycle count follows if bit 31 is set).
"""

import json
import struct
import sys
from collections import Counter

LOST, WAKE, SWITCH = 0x0001F001, 0x00028004, 0x0002800A
IDLE = 0x7FFF


def main(path: str) -> None:
    with open(path, "rb") as file:
        data = file.read()
    switches = lost = at = 0
    into: Counter[int] = Counter()
    wakes: Counter[int] = Counter()
    while at + 4 <= len(data):
        (header,) = struct.unpack_from("<I", data, at)
        event, extra = header & 0x0FFFFFFF, header >> 28 & 7
        at += 12 if header >> 31 else 4
        words = struct.unpack_from(f"<{extra}I", data, at)
        at += 4 * extra
        if event == SWITCH and words[0] != words[2]:
            switches += 1
            into[words[2]] += 1
        elif event == WAKE:
            wakes[words[0]] += 1
        elif event == LOST:
            lost += words[0]
    into.pop(IDLE, None)
    print(json.dumps({"switches": switches, "into": into, "wakes": wakes, "lost": lost}))


main(sys.argv[1])
