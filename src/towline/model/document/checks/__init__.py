"""Checks of a job that has been read, beyond the type of each field."""

from towline.model.document.checks.whole import check_job, check_params

__all__ = ["check_job", "check_params"]
