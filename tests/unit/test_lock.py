"""requirements.lock: every package that is installed, within setup.cfg's bounds, with hashes; sbom.cdx.json: the same list."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked() -> dict[str, list[str]]:
    """Package -> its block for each environment."""
    blocks: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=[A-Za-z])", LOCK.read_text()):
        if "==" in block.splitlines()[0]:
            blocks.setdefault(canonicalize_name(block.split("==")[0]), []).append(block)
    return blocks


def wanted() -> list[Requirement]:
    """What setup.cfg asks for, with all extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_fault_D25_every_package_is_pinned_by_hashes() -> None:
    blocks = [block for found in locked().values() for block in found]
    assert len(blocks) > 40
    assert [block.splitlines()[0] for block in blocks if not HASH.search(block)] == []


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_what_is_pinned_is_within_the_bounds(requirement: Requirement) -> None:
    versions = [re.split(r"[\s;\\]", block.split("==")[1])[0] for block in locked()[canonicalize_name(requirement.name)]]
    assert [v for v in versions if not requirement.specifier.contains(v)] == []


def test_the_bill_of_materials_is_the_lock() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "tools" / "sbom.py"], input=LOCK.read_text(), capture_output=True, text=True, check=True
    ).stdout
    assert made == (ROOT / "sbom.cdx.json").read_text()
    document = json.loads(made)
    assert {canonicalize_name(c["name"]) for c in document["components"]} == locked().keys()
    assert all(c["purl"].startswith("pkg:pypi/") for c in document["components"])
