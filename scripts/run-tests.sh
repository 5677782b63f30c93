#!/bin/bash
# Runs all tests, in four rows side by side, since most of them wait: commands on one machine; clusters; parts; and,
# one after the other, some tests of one machine against a cluster, what is long of those of containers, and what
# starts single servers and agents. The first row's output is shown as it comes, that of the others behind it. Where
# no more than three tests of a group fail, they are run once more, with the machine to themselves: a fault of the
# program fails again, a test that cannot stand a busy machine is named as unsteady, which is a defect of its own.
#
#   scripts/run-tests.sh PYTEST [OPTION…]     options go to all; the status is that of a group that failed
set -um  # m: each group has a process group of its own, and hears Ctrl-C from us

FEW=3
pytest=("$@")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Tests of tests/e2e that are not in the first row: the rows are to take about as long.
cluster=(tests/e2e/test_{artifacts_between_nodes,cluster,database,recovery,recovery_*,server_*,servers,takeover}.py)
containers=(tests/e2e/test_{exec,images,kill}.py)
rows=(machine cluster parts "clustered containers integration")

group() { # NAME [OPTION…]: its tests, with a memory of its own of what failed
    local name=$1 tests
    shift
    case $name in
    machine)
        tests=(tests/e2e)
        for path in "${cluster[@]}" "${containers[@]}"; do tests+=("--ignore=$path"); done
        ;;
    cluster) tests=("${cluster[@]}") ;;
    integration) tests=(tests/integration) ;;
    containers) tests=("${containers[@]}") ;;
    parts) tests=(tests/unit tests/simulation tests/conformance) ;;
    clustered)
        tests=(tests/e2e/test_jobs.py -k "not oci and not docker")
        export TOWLINE_TEST_MODE=cluster
        ;;
    esac
    # The options come last: a -k of theirs counts.
    exec "${pytest[0]}" -o cache_dir="$folder/$name" "${tests[@]}" "${pytest[@]:1}" "$@"
}

row() { # NAME…: groups, one after the other, and the status of each in a file
    set +m # all of it hears what the row is told
    for name; do
        (group "$name")
        echo $? >"$folder/$name.status"
    done
}

pids=()
for at in "${!rows[@]}"; do
    read -ra names <<<"${rows[$at]}"
    if [ "$at" -eq 0 ]; then
        row "${names[@]}" &
    else
        row "${names[@]}" >"$folder/$at.output" 2>&1 &
    fi
    pids+=($!)
done
interrupted=
trap 'interrupted=1; for pid in "${pids[@]}"; do kill -INT -- "-$pid" 2>/dev/null; done' INT TERM

ended_of() { # waits for a row, also where a signal to us cuts the waiting short
    local status
    while true; do
        wait "$1"
        status=$?
        kill -0 "$1" 2>/dev/null || return $status
    done
}

failed_of() { # NAME: the tests of a group that failed, a line each
    sed -n 's/^  "\(.*\)": true,\{0,1\}$/\1/p' "$folder/$1/v/cache/lastfailed" 2>/dev/null
}

verdict() { # NAME STATUS: the status of a group, after a second try of its few failures
    local name=$1 status=$2 failed
    if [ "$status" -eq 5 ]; then return 0; fi # the options leave no test in this group
    if [ "$status" -ne 1 ] || [ -n "$interrupted" ]; then return "$status"; fi
    failed=$(failed_of "$name")
    if [ -z "$failed" ] || [ "$(wc -l <<<"$failed")" -gt $FEW ]; then return "$status"; fi
    echo "== failed beside other tests, once more alone:"
    group "$name" --last-failed --last-failed-no-failures none &
    pids=($!)
    ended_of "${pids[0]}" || return $?
    echo "== unsteady: failed beside other tests, passed alone:"
    echo "$failed"
}

for at in "${!rows[@]}"; do
    ended_of "${pids[$at]}"
    if [ "$at" -gt 0 ]; then cat "$folder/$at.output"; fi
done
worst=0
for name in ${rows[*]}; do
    verdict "$name" "$(cat "$folder/$name.status" 2>/dev/null || echo 1)" || worst=$?
done
exit "$worst"
