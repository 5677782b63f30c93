"""What of a job did not succeed runs again: in a running job, or in one that had ended.

A job that has ended is not in memory, and of a running one its ended elements are there as ranges
only: the command brings what the store says of it. That is trusted as long as nothing has happened to
the job since which it cannot know; else the command is refused as outdated and comes again with a new
record. Whatever runs again keeps its attempts: numbers go on rising, so ids are never used again.
"""

from towline.core.pool.repair.retrying import retry

__all__ = ["retry"]
