"""requirements.lock on stdin -> a software bill of materials on stdout: CycloneDX 1.5, JSON. Needs nothing but Python."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable

PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*(.*?))?\s*\\?$")


def components(lines: Iterable[str]) -> list[dict[str, object]]:
    """Name, version and package URL of each pinned package, and under which conditions it is installed."""
    found = []
    for line in lines:
        pinned = PINNED.match(line.strip()) if not line.startswith((" ", "#")) else None
        if pinned is None:
            continue
        name, version, marker = pinned.groups()
        component: dict[str, object] = {
            "type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name.lower()}@{version}",
            "bom-ref": f"{name}@{version}",
        }  # fmt: skip
        if marker:
            component["properties"] = [{"name": "python:marker", "value": marker}]
        found.append(component)
    return found


def main() -> None:
    """Without a time stamp or a serial number: the same lock gives the same file."""
    document = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {"type": "application", "name": "fsctl", "bom-ref": "fsctl"}},
        "components": components(sys.stdin),
    }  # fmt: skip
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
