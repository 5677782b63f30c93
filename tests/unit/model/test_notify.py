"""Webhooks in a job file."""

from __future__ import annotations

import pytest
from tests.unit.model.loading import load, problems

from towline.model.document.checks.notify import MAX_NOTICES, url_fault
from towline.model.document.write import to_document
from towline.model.job import Notice

JOB = "name: x\ntasks: {a: {image: busybox}}\nnotify:\n"


def test_a_webhook_hears_of_every_end_unless_it_is_said() -> None:
    text = JOB + "  - {webhook: https://h/x, secret: s}\n  - {webhook: https://h, secret: s, on: [failed]}\n"
    spec = load(text)
    assert spec.notify == (
        Notice(webhook="https://h/x", secret="s", on=("succeeded", "failed", "cancelled", "quarantined")),
        Notice(webhook="https://h", secret="s", on=("failed",)),
    )
    assert to_document(spec)["notify"][1] == {"webhook": "https://h", "secret": "s", "on": ["failed"]}


@pytest.mark.parametrize(
    ("entry", "where", "words"),
    [
        ("{webhok: https://h, secret: s}", "notify[0].webhok", "did you mean 'webhook'"),
        ("{webhook: https://h}", "notify[0].secret", "is missing"),
        ("{webhook: https://h, secret: s, on: [fail]}", "notify[0].on[0]", "failed"),
        ("{webhook: https://h, secret: s, on: []}", "notify[0].on", "is empty"),
        ("{webhook: https://h, secret: ../s}", "notify[0].secret", "the name is"),
        ("{webhook: h, secret: s}", "notify[0].webhook", "no URL"),
        ("https://h", "notify[0]", "not a mapping"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(entry: str, where: str, words: str) -> None:
    found = {
        problem.where: f"{problem.message} {problem.remedy}" for problem in problems(JOB + f"  - {entry}\n")
    }
    assert words in found[where]


def test_a_task_has_no_webhooks_and_a_job_not_too_many() -> None:
    (problem,) = problems("name: x\ntasks: {a: {image: busybox, notify: []}}\n")
    assert "the job has" in problem.message
    entries = "  - {webhook: https://h, secret: s}\n" * (MAX_NOTICES + 1)
    assert "at most" in problems(JOB + entries)[0].remedy


@pytest.mark.parametrize(
    "url",
    [
        "", "/x", "ftp://h/x", "https://", "https:///x", "https://h:0/", "https://h:99999/", "https://[::1",
        "https://u:p@h/", "https://h/#x", "https://h/a b", "https://h/\n", "https://ü/",
        "https://h/" + "x" * 2000,
    ],
)  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    assert url_fault(url) is not None
