"""Images: pulled from registries or read from layouts and archives, checked, unpacked once, collected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from towline.images.failures import ImageFailed
    from towline.images.layout import ImageConfig
    from towline.images.skopeo import Login
    from towline.images.store import Image, ImageStore

__all__ = ["Image", "ImageConfig", "ImageFailed", "ImageStore", "Login"]

_WHERE = {
    "ImageFailed": "failures",
    "ImageConfig": "layout",
    "Image": "store",
    "ImageStore": "store",
    "Login": "skopeo",
}


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: the process that unpacks needs none of them."""
    from importlib import import_module

    if name not in _WHERE:
        raise AttributeError(name)
    return getattr(import_module(f"towline.images.{_WHERE[name]}"), name)
