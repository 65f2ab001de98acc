#!/usr/bin/env bash
# Set up what fsctl needs, and only what is missing; quick when nothing is.
#
#   tools/setup.sh venv     .venv at the root of the checkout (no root needed where python3-venv is installed)
#   tools/setup.sh system   Debian packages: Open vSwitch, Mininet, measuring tools (root)
#   tools/setup.sh all      both
#   tools/setup.sh frr      Debian packages of `make demo-agent`: FRR, nftables (root)
#
# Packages are installed without starting their services, and nothing that runs is stopped or restarted.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
LOG=$(mktemp "${TMPDIR:-/tmp}/fsctl-setup.XXXXXX.log")
POLICY=/usr/sbin/policy-rc.d
POLICY_OURS=

VENV_PACKAGES=(python3 python3-venv)
LAB_PACKAGES=(
    openvswitch-switch mininet iproute2 iputils-ping iperf3 tcpdump ethtool traceroute net-tools procps
    nftables iptables # the agent's tests: routers with firewalls
)
ROUTING_PACKAGES=(frr bird2 keepalived) # what the agent is tested beside
FRR_PACKAGES=(frr nftables) # make demo-agent: routers that run OSPF

say() { printf 'set-up: %s\n' "$*" >&2; }

finish() {
    local rc=$?
    [ -z "$POLICY_OURS" ] || rm -f "$POLICY"
    if [ "$rc" -ne 0 ]; then
        printf '\nset-up failed; the end of %s:\n\n' "$LOG" >&2
        tail -n 25 "$LOG" >&2
        printf '\nWhat to do: see whether Debian'\''s mirrors and PyPI can be reached from here (a proxy is taken from\n' >&2
        printf 'http_proxy/https_proxy), then run the same command again: it goes on where it stopped.\n' >&2
        printf '`make clean` removes .venv for a fresh start.\n' >&2
    else
        rm -f "$LOG"
    fi
}
trap finish EXIT

missing_of() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || printf '%s\n' "$package"
    done
}

# Debian starts a service when its package is installed; policy-rc.d (invoke-rc.d(8)) forbids it for our run.
forbid_service_start() {
    [ -e "$POLICY" ] && return
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
    POLICY_OURS=yes
}

apt_install() {
    local missing
    mapfile -t missing < <(missing_of "$@")
    [ "${#missing[@]}" -eq 0 ] && return
    if ! command -v apt-get >/dev/null; then
        echo "no apt-get here: install the counterparts of: ${missing[*]}" >>"$LOG"
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "Debian packages are missing: ${missing[*]}; run: sudo tools/setup.sh all" >>"$LOG"
        return 1
    fi
    say "installing Debian packages: ${missing[*]}"
    forbid_service_start
    export DEBIAN_FRONTEND=noninteractive
    apt-get update >>"$LOG" 2>&1 || say "apt-get update failed, going on with the lists that are here"
    apt-get install -y --no-install-recommends "${missing[@]}" >>"$LOG" 2>&1
}

make_venv() {
    local stamp want
    want=$(cat requirements.txt requirements.lock setup.cfg pyproject.toml tools/constraints.txt fsctl/compat.py 2>/dev/null | sha256sum | cut -c1-16)
    stamp=$VENV/.fsctl-$want
    [ -e "$stamp" ] && return
    apt_install "${VENV_PACKAGES[@]}"
    say "making $VENV (a minute or two the first time)"
    # Mininet is a package of the system's python: the venv must be that python's and see its site packages.
    [ -x $VENV/bin/python ] || /usr/bin/python3 -m venv --system-site-packages $VENV >>"$LOG" 2>&1
    # Two names for one thing: pip before, and since 25.3.
    export PIP_CONSTRAINT=$PWD/tools/constraints.txt PIP_BUILD_CONSTRAINT=$PWD/tools/constraints.txt
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    say "installing Python packages"
    # Every file that is downloaded is one whose hash `make lock` has written down.
    $VENV/bin/python -m pip install --require-hashes -r requirements.lock >>"$LOG" 2>&1
    $VENV/bin/python -m pip install --no-deps -r requirements.txt >>"$LOG" 2>&1
    say "making Ryu run on this Python"
    $VENV/bin/python -m fsctl.compat >>"$LOG" 2>&1
    rm -f $VENV/.fsctl-*
    touch "$stamp"
    # Under sudo the checkout stays its owner's.
    [ "$(id -u)" -ne 0 ] || chown -R --reference=. $VENV ./*.egg-info
}

case "${1:-all}" in
    venv) make_venv ;;
    system) apt_install "${LAB_PACKAGES[@]}" "${ROUTING_PACKAGES[@]}" ;;
    frr) apt_install "${FRR_PACKAGES[@]}" ;;
    all) apt_install "${VENV_PACKAGES[@]}" "${LAB_PACKAGES[@]}" "${ROUTING_PACKAGES[@]}"; make_venv ;;
    *) echo "usage: $0 [venv|system|all|frr]" >&2; exit 2 ;;
esac
