"""Queues at the terminal: made, shown, bounded, deleted; priorities; plans; and why something waits."""

from __future__ import annotations

from tests.e2e.home import Home, Maker, until


def test_queues_from_their_making_to_their_end(home: Home, script: Maker) -> None:
    made = home.json(
        "queue", "create", "lab", "--weight", "3", "--max", "cpu=4,memory=8Gi", "--max-active", "1"
    )
    assert (made["weight"], made["maximum"], made["max_active"]) == (3, {"cpu": 4, "memory": 8 * 2**30}, 1)
    assert home.json("queue", "set", "lab", "--max", "cpu=none", "--max-priority", "60")["maximum"] == {
        "memory": 8 * 2**30
    }
    sleeper = script("sleep 600", resources={"cpu": 0.1, "memory": "16Mi"}, array=3)
    job = home.submit({"s": sleeper}, queue="lab")

    def active() -> bool:
        return home.json("queue", "show", "lab")["active"] == 1

    until(active, "one element of the queue to be active")
    assert "lab" in home.tow("queue", "ls").stdout
    why = home.json("why", f"{job}/s")
    assert "queue lab has 1 active elements, its max_active" in why["summary"]
    plan = home.json("plan", home.job_file({"s": sleeper}, queue="lab"))
    assert plan["placements"] == []
    assert plan["waiting"][0]["count"] == 3
    planned = home.json("plan", home.job_file({"s": sleeper}))
    assert sum(one["count"] for one in planned["placements"]) == 3
    assert home.json("priority", job, "55")["priority"] == 55
    refused = home.tow("priority", job, "70", status=2)
    assert "at most 60" in refused.stderr
    assert "unfinished jobs" in home.tow("queue", "rm", "lab", status=2).stderr
    home.tow("cancel", job, "--kill")
    home.tow("wait", job, status=1)
    home.tow("queue", "rm", "lab")
    assert [view["name"] for view in home.json("queue", "ls")["queues"]] == ["default"]


def test_a_plan_is_refused_where_a_submission_would_be(home: Home, script: Maker) -> None:
    file = home.job_file({"t": script("true", secrets={"T": "nope"})})
    for command in ("plan", "submit"):
        assert "there is no secret 'nope'" in home.tow(command, file, status=2).stderr


def test_what_is_wrong_with_a_queue_is_named(home: Home, script: Maker) -> None:
    home.tow("queue", "create", "research")
    for arguments, words in (
        (("queue", "create", "research"), "tow queue set research"),
        (("queue", "set", "reserch"), "did you mean research?"),
        (("queue", "create", "x", "--max", "cpu"), "NAME=AMOUNT"),
        (("queue", "create", "x", "--max", "cpu=fast"), "maximum.cpu"),
        (("queue", "create", "x", "--guaranteed", "cpu=4", "--max", "cpu=2"), "below its guaranteed 4 CPUs"),
        (("queue", "create", "x", "--parent", "y"), "parent 'y'"),
        (("queue", "create", "x", "--max-active", "few"), "--max-active 'few'"),
        (("queue", "rm", "default"), "'default' stays"),
        (("submit", home.job_file({"t": script("true")}, queue="reserch")), "did you mean research"),
    ):
        answer = home.tow(*arguments, status=2)
        assert words in answer.stderr, answer.stderr
        assert "Traceback" not in answer.stderr
