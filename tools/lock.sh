#!/usr/bin/env bash
# Pin every Python package that `make` installs, with the hashes of its files: requirements.lock; and list them as
# sbom.cdx.json (CycloneDX). Run it after a change of setup.cfg, or to take newer versions in; then `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
DIRECTORY=$(mktemp -d "${TMPDIR:-/tmp}/fsctl-lock.XXXXXX")
trap 'rm -rf "$DIRECTORY"' EXIT

/usr/bin/python3 -m venv "$DIRECTORY/venv"
"$DIRECTORY/venv/bin/pip" install --quiet --disable-pip-version-check 'uv>=0.5,<1'
"$DIRECTORY/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --constraint tools/constraints.txt --build-constraint tools/constraints.txt \
    --extra controller --extra agent --extra test --extra bench setup.cfg --output-file "$DIRECTORY/lock"
{
    printf '# Made by `make lock` from setup.cfg and tools/constraints.txt: all packages, with the hashes of their files.\n'
    cat "$DIRECTORY/lock"
} > requirements.lock
/usr/bin/python3 tools/sbom.py < requirements.lock > sbom.cdx.json
printf 'requirements.lock: %s packages\n' "$(grep -c '^[a-z]' requirements.lock)"
