#!/bin/sh
# Installs from Debian what only the tests need: Docker's engine and its compose, Podman's, a registry, uidmap for
# tests as a user who is not root, libfaketime for clocks that jump, and PostgreSQL's server. The tests start their
# own engines and databases, in folders of their own; the demo needs none of it. Quick and silent where all is there.
set -eu

missing=""
command -v dockerd >/dev/null 2>&1 || missing="$missing docker.io"
command -v podman >/dev/null 2>&1 || missing="$missing podman"
command -v runc >/dev/null 2>&1 || missing="$missing runc"
command -v newuidmap >/dev/null 2>&1 || missing="$missing uidmap"
command -v docker-compose >/dev/null 2>&1 || missing="$missing docker-compose"
command -v docker-registry >/dev/null 2>&1 || missing="$missing docker-registry"
command -v faketime >/dev/null 2>&1 || missing="$missing faketime"
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    # No server of the machine's own: the tests start theirs.
    settings=/etc/postgresql-common/createcluster.conf
    [ -f "$settings" ] || "$(dirname "$0")/apt-install.sh" postgresql-common
    sed -i 's/^#* *create_main_cluster.*/create_main_cluster = false/' "$settings"
    missing="$missing postgresql"
fi
[ -e /usr/share/java/zookeeper.jar ] || missing="$missing zookeeper"
command -v java >/dev/null 2>&1 || missing="$missing default-jre-headless"
[ -n "$missing" ] || exit 0
# shellcheck disable=SC2086 # a list of packages
exec "$(dirname "$0")/apt-install.sh" $missing
