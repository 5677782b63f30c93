"""Registries asked by ourselves, where that is quicker than by skopeo."""
