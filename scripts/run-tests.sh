#!/bin/bash
# Runs all tests in two halves side by side: those that start servers and commands, and those of parts, whose
# output is shown behind that (those of tow exec among them, so that the halves take about as long). Where no
# more than three tests of a half fail, they are run once more, with the machine to themselves: a fault of the
# program fails again, a test that cannot stand a busy machine is named as unsteady, which is a defect of its own.
#
#   scripts/run-tests.sh PYTEST [OPTION…]     options go to both; the status is that of a half that failed
set -um  # m: each half has a process group of its own, and hears Ctrl-C from us

FEW=3
pytest=("$@")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

half() { # NAME [OPTION…]: its tests, with a memory of its own of what failed
    local name=$1 further=tests/e2e/test_exec.py
    local paths=(tests/integration tests/e2e "--ignore=$further")
    shift
    if [ "$name" = parts ]; then paths=(tests/unit tests/simulation tests/conformance "$further"); fi
    exec "${pytest[@]}" -o cache_dir="$folder/$name" "$@" "${paths[@]}"
}

half parts >"$folder/output" 2>&1 &
parts=$!
half programs &
programs=$!
interrupted=
trap 'interrupted=1; kill -INT -- -$programs -$parts 2>/dev/null' INT TERM

ended_of() { # waits for a half, also where a signal to us cuts the waiting short
    local status
    while true; do
        wait "$1"
        status=$?
        kill -0 "$1" 2>/dev/null || return $status
    done
}

failed_of() { # NAME: the tests of a half that failed, a line each
    sed -n 's/^  "\(.*\)": true,\{0,1\}$/\1/p' "$folder/$1/v/cache/lastfailed" 2>/dev/null
}

verdict() { # NAME STATUS: the status of a half, after a second try of its few failures
    local name=$1 status=$2 failed
    if [ "$status" -eq 5 ]; then return 0; fi # the options leave no test in this half
    if [ "$status" -ne 1 ] || [ -n "$interrupted" ]; then return "$status"; fi
    failed=$(failed_of "$name")
    if [ -z "$failed" ] || [ "$(wc -l <<<"$failed")" -gt $FEW ]; then return "$status"; fi
    echo "== failed beside other tests, once more alone:"
    half "$name" --last-failed --last-failed-no-failures none &
    programs=$!
    ended_of $programs || return $?
    echo "== unsteady: failed beside other tests, passed alone:"
    echo "$failed"
}

ended_of $programs
first=$?
ended_of $parts
second=$?
cat "$folder/output"
verdict programs $first
first=$?
verdict parts $second
second=$?
if [ "$first" -ne 0 ]; then exit "$first"; fi
exit "$second"
