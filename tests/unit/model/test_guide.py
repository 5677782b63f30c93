"""What docs/guides/job-file.md shows loads."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.model.loading import load

from towline.model.document.fields import fields_of
from towline.model.job import JobSpec, TaskSpec

GUIDE = (Path(__file__).parents[3] / "docs/guides/job-file.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)


def test_the_examples_of_the_guide_load():
    whole = [text for text in BLOCKS if text.startswith("name:")]
    fields = [text for text in BLOCKS if not text.startswith("name:")]
    assert len(whole) == 1 and fields
    assert list(load(whole[0]).tasks) == ["split", "count", "report"]
    of_jobs = [text for text in fields if text.split(":")[0] in fields_of(JobSpec)]
    for text in of_jobs:
        job = load(f"name: x\n{text}tasks: {{a: {{image: busybox}}}}\n")
        assert job != load("name: x\ntasks: {a: {image: busybox}}\n")
    for text in fields:
        if text in of_jobs:
            continue
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        task = load(f"name: x\ntasks:\n  a:\n    image: busybox\n{indented}").tasks["a"]
        assert task != TaskSpec(image="busybox")


def test_the_guide_names_every_field():
    for name in (*fields_of(JobSpec), *fields_of(TaskSpec)):
        assert f"`{name}`" in GUIDE, name
