"""Servers on other machines: how they are reached, named contexts, tokens and the audit."""
