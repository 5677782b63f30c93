"""The Python SDK: submit jobs and follow them, from async code or not.

    from towline.client import SyncClient

    with SyncClient() as client:
        job = client.submit("job.yaml", params={"year": 2014})
        print(job.wait().state)

``connect`` gives the async ``Client``; names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towline.client.api import Client as Client
    from towline.client.api import JobPage as JobPage
    from towline.client.cluster.remote import Remote as Remote
    from towline.client.jobs import Job as Job
    from towline.client.local import connect as connect
    from towline.client.streams import LogChunk as LogChunk
    from towline.client.submission import Submission as Submission
    from towline.client.sync import SyncClient as SyncClient
    from towline.client.sync import SyncJob as SyncJob

_HOMES = {
    "Client": "api",
    "Job": "jobs",
    "JobPage": "api",
    "LogChunk": "streams",
    "Remote": "cluster.remote",
    "Submission": "submission",
    "SyncClient": "sync",
    "SyncJob": "sync",
    "connect": "local",
}

__all__ = [
    "Client",
    "Job",
    "JobPage",
    "LogChunk",
    "Remote",
    "Submission",
    "SyncClient",
    "SyncJob",
    "connect",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
