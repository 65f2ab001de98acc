#!/usr/bin/env bash
# Install the Debian packages that are missing among the arguments, without starting any service of theirs.
set -euo pipefail
POLICY=/usr/sbin/policy-rc.d
missing=()
for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
# The labs fetch kernels and Xen with apt-get download: the package lists must not be from long ago.
if [ "${#missing[@]}" -gt 0 ] || [ -z "$(find /var/lib/apt/lists -name '*_Packages*' -mtime -2 -print -quit)" ]; then
    apt-get -qq update
fi
[ "${#missing[@]}" -gt 0 ] || exit 0
echo "labs: installing Debian packages: ${missing[*]}" >&2
if [ ! -e "$POLICY" ]; then
    trap 'rm -f "$POLICY"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
