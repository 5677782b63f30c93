"""Why an image cannot be had, as a stable word for programs and a sentence for people."""

from __future__ import annotations

from towline.errors import TowlineError
from towline.model.states import Reason


class ImageFailed(TowlineError):
    """An attempt cannot start for its image's sake. ``reason`` is a Reason's word, as in StartFailed;
    ``tried`` what was done for it, with unix ms."""

    tried: tuple[tuple[int, str], ...] = ()

    def __init__(self, message: str, reason: Reason) -> None:
        self.reason = reason.value
        super().__init__(message)


def not_found(message: str) -> ImageFailed:
    return ImageFailed(message, Reason.IMAGE_NOT_FOUND)


def unusable(reference: str, error: ValueError) -> ImageFailed:
    """What is written is no image's name, for this reason."""
    return not_found(f"The image {reference[:200]!r} cannot be used: {error}.")


def corrupt(message: str) -> ImageFailed:
    return ImageFailed(message, Reason.IMAGE_CORRUPT)


def disk_full(what: str) -> ImageFailed:
    return ImageFailed(
        f"There is no space left on this node's disk for {what}: free some, for example with 'tow image gc'.",
        Reason.DISK_FULL,
    )


def unpullable(message: str) -> ImageFailed:
    """The registry did not give it in time, or does not answer: later or elsewhere it may."""
    return ImageFailed(message, Reason.IMAGE_PULL_TIMEOUT)


def unauthorised(message: str) -> ImageFailed:
    return ImageFailed(message, Reason.IMAGE_AUTH)
