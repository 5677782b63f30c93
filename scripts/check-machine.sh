#!/bin/sh
# Tells in one sentence why this machine cannot run containers, and what to do; installs from Debian what
# is missing of crun, runc, skopeo, umoci, e2fsprogs and busybox. Quick and silent where all is there.
set -eu

refuse() {
    echo "towline: $1" >&2
    exit 1
}

[ "$(uname -s)" = Linux ] ||
    refuse "containers need Linux, and this is $(uname -s): use a Linux machine or VM (Debian 12, as root)."
[ "$(id -u)" = 0 ] ||
    refuse "this version needs root to run containers: repeat the command as root, for example with sudo."
unshare --mount --pid --fork true 2>/dev/null ||
    refuse "this box may not make namespaces: run in a VM, or start this container with --privileged."

missing=""
for program in crun runc skopeo umoci; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
command -v mkfs.ext4 >/dev/null 2>&1 || missing="$missing e2fsprogs" # for resources.disk
command -v busybox >/dev/null 2>&1 || missing="$missing busybox-static"
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null 2>&1 ||
    refuse "these programs are missing, and there is no apt-get to install them with:$missing."
# shellcheck disable=SC2086 # a list of packages
exec "$(dirname "$0")/apt-install.sh" $missing
