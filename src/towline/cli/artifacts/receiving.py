"""Files that come from elsewhere, put below one folder and nowhere else.

Their names are what a container has chosen. Each step goes from a folder's descriptor to a plain name in
it, and follows no link; a file gets its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from towline.errors import OperatorError, RequestError
from towline.model.views import ArtifactView

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODES = 0o755
"""Of a file's permissions only these are taken over: nobody else may write, and no set-id bit comes along."""


def parts_of(path: str) -> tuple[str, ...]:
    """The names of a path. Raises OperatorError for one that would lead out of the folder."""
    parts = tuple(path.split("/"))
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise OperatorError(f"The server named an artifact {path!r}, which is no path below a folder.")
    return parts


class Destination:
    """The folder at ``path``, made where there is none. ``force``: files that are there are replaced."""

    def __init__(self, path: Path, *, force: bool) -> None:
        self.path = path
        self._force = force

    def occupied(self, parts: tuple[str, ...]) -> bool:
        """Whether something stands at a file's place that may not be replaced."""
        return not self._force and os.path.lexists(self.path.joinpath(*parts))

    def make_folder(self, parts: tuple[str, ...]) -> None:
        """Raises OperatorError, such as where a file has its place."""
        try:
            with self._folder(parts):
                pass
        except OSError as error:
            raise self._unwritable(parts, error) from None

    async def take(
        self,
        parts: tuple[str, ...],
        artifact: ArtifactView,
        pieces: AsyncIterator[bytes],
        told: Callable[[int], None],
    ) -> None:
        """Write a file under another name, and give it its own when all of it is there. ``told`` hears of
        each piece's length. Raises OperatorError, and RequestError where something has its place."""
        try:
            with self._folder(parts[:-1]) as folder:
                fresh = f".{secrets.token_hex(6)}.part"
                descriptor = os.open(fresh, _NEW, 0o600, dir_fd=folder)
                try:
                    with os.fdopen(descriptor, "wb") as file:
                        size = 0
                        async for piece in pieces:
                            file.write(piece)
                            size += len(piece)
                            told(len(piece))
                        file.flush()
                        if size != artifact.size_bytes:
                            raise OperatorError(
                                f"{artifact.path} has {size} bytes, and {artifact.size_bytes} when it was "
                                "listed: fetch it again."
                            )
                        os.fchmod(file.fileno(), 0o600 | (int(artifact.mode, 8) & _MODES & ~_umask()))
                    self._name(folder, fresh, parts)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(fresh, dir_fd=folder)
                    raise
        except OSError as error:
            raise self._unwritable(parts, error) from None

    def _unwritable(self, parts: tuple[str, ...], error: OSError) -> OperatorError:
        return OperatorError(f"{self.path.joinpath(*parts)} cannot be written: {error.strerror}.")

    def _name(self, folder: int, fresh: str, parts: tuple[str, ...]) -> None:
        if self._force:
            os.replace(fresh, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            return
        try:
            os.link(fresh, parts[-1], src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise RequestError(in_the_way([self.path.joinpath(*parts)])) from None
        os.unlink(fresh, dir_fd=folder)

    @contextmanager
    def _folder(self, parts: tuple[str, ...]) -> Generator[int, None, None]:
        self.path.mkdir(parents=True, exist_ok=True)
        # The folder itself is the user's choice, and may be behind a link; what is in it may not.
        folder = os.open(self.path, _FOLDER & ~os.O_NOFOLLOW)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o777, dir_fd=folder)
                below = os.open(part, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)


def in_the_way(paths: list[Path]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    named = ", ".join(map(str, paths[:3]))
    verb = "is" if len(paths) == 1 else "are"
    return f"{named}{more} {verb} there already: fetch into another folder with -o DIR, or add --force."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
