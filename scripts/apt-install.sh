#!/bin/sh
# Installs Debian packages without asking anything: apt-install.sh PACKAGE...
set -eu

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive

if [ "$(id -u)" != 0 ]; then
    echo "towline: missing here: $*: install them as root with: apt-get install $*" >&2
    exit 1
fi
echo "Installing $* with apt-get"
install() {
    apt-get install -y -q --no-install-recommends "$@" >"$log" 2>&1
}
# A fresh machine has no package lists yet.
install "$@" || { apt-get update -q >"$log" 2>&1 && install "$@"; } || {
    tail -n 20 "$log" >&2
    echo "towline: apt-get could not install $* (its last words are above)" >&2
    exit 1
}
