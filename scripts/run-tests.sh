#!/bin/bash
# Runs all tests in two halves side by side, which take about as long: those at the terminal (tests/e2e), and
# all others, whose output is shown behind that. Where no more than three tests of a half fail, they are run
# once more, with the machine to themselves: a fault of the program fails again, a test that cannot stand a
# busy machine is named as unsteady, which is a defect of its own.
#
#   scripts/run-tests.sh PYTEST [OPTION…]     options go to both; the status is that of a half that failed
set -um  # m: each half has a process group of its own, and hears Ctrl-C from us

FEW=3
pytest=("$@")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

half() { # NAME [OPTION…]: its tests, with a memory of its own of what failed
    local name=$1 paths=(tests/e2e)
    shift
    if [ "$name" = parts ]; then paths=(tests/unit tests/simulation tests/conformance tests/integration); fi
    exec "${pytest[@]}" -o cache_dir="$folder/$name" "$@" "${paths[@]}"
}

half parts >"$folder/output" 2>&1 &
parts=$!
half terminal &
terminal=$!
interrupted=
trap 'interrupted=1; kill -INT -- -$terminal -$parts 2>/dev/null' INT TERM

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
    terminal=$!
    ended_of $terminal || return $?
    echo "== unsteady: failed beside other tests, passed alone:"
    echo "$failed"
}

ended_of $terminal
first=$?
ended_of $parts
second=$?
cat "$folder/output"
verdict terminal $first
first=$?
verdict parts $second
second=$?
if [ "$first" -ne 0 ]; then exit "$first"; fi
exit "$second"
