#!/bin/bash
# Runs all tests in two halves side by side: those that start the real programs and mostly wait for them,
# and those that compute, whose output is shown behind that of the others.
#
#   scripts/run-tests.sh PYTEST [OPTION…]     options go to both; the status is that of a half that failed
set -um  # m: each half has a process group of its own, and hears Ctrl-C from us

output=$(mktemp)
trap 'rm -f "$output"' EXIT
"$@" tests/unit tests/simulation tests/conformance >"$output" 2>&1 &
parts=$!
"$@" tests/integration tests/e2e &
programs=$!
trap 'kill -INT -- -$programs -$parts 2>/dev/null' INT TERM

ended_of() { # waits for a half, also where a signal to us cuts the waiting short
    local status
    while true; do
        wait "$1"
        status=$?
        kill -0 "$1" 2>/dev/null || return $status
    done
}

ended_of $programs
first=$?
ended_of $parts
second=$?
cat "$output"
for status in $first $second; do
    # 5: the options leave no test in this half
    if [ "$status" -ne 0 ] && [ "$status" -ne 5 ]; then exit "$status"; fi
done
