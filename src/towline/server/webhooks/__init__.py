"""Telling others of jobs' ends: which targets are allowed, how a message is signed and sent, and when."""
