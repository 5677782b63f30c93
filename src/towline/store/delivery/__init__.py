"""Webhooks that are owed: rows of them, and how far the events were looked through for jobs' ends."""
