"""The server's key: 32 random bytes in a file that only its owner may read, and what it encrypts.

A sealed value is ``format (1 byte) | key id (8) | nonce (12) | AES-256-GCM ciphertext and tag``.
The key's id, the beginning of a hash of it, tells a value of another key from a damaged one.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from pathlib import Path

from towline.errors import OperatorError

KEY_BYTES = 32
_FORMAT = b"\x01"
_ID_BYTES = 8
_NONCE_BYTES = 12
_HEAD = len(_FORMAT) + _ID_BYTES
_PREFIX = "towline-key-1 "


class WrongKey(Exception):
    """The value was sealed with another key."""


class Damaged(Exception):
    """The value is not what was sealed, or not under this name."""


class Key:
    """Encrypts and decrypts; neither the key nor a value is ever shown by it."""

    def __init__(self, secret: bytes) -> None:
        # Imported late: many homes never keep a secret.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(secret) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(secret)}")
        self._cipher = AESGCM(secret)
        self._id = hashlib.sha256(b"towline key id\0" + secret).digest()[:_ID_BYTES]

    def __repr__(self) -> str:
        return f"<Key {self._id.hex()}>"

    @property
    def id(self) -> str:
        """Names the key without telling anything of it."""
        return self._id.hex()

    def seal(self, value: bytes, bound_to: tuple[str, ...]) -> bytes:
        """Encrypt, bound to the words of ``bound_to``: under other words it does not open."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = _FORMAT + self._id
        return head + nonce + self._cipher.encrypt(nonce, value, _bound(head, bound_to))

    def open(self, sealed: bytes, bound_to: tuple[str, ...]) -> bytes:
        """Raises WrongKey or Damaged."""
        from cryptography.exceptions import InvalidTag

        head, rest = sealed[:_HEAD], sealed[_HEAD:]
        if len(head) < _HEAD or not head.startswith(_FORMAT) or len(rest) < _NONCE_BYTES:
            raise Damaged
        if head[len(_FORMAT) :] != self._id:
            raise WrongKey
        try:
            return self._cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _bound(head, bound_to))
        except InvalidTag:
            raise Damaged from None


def _bound(head: bytes, words: tuple[str, ...]) -> bytes:
    """The words with their lengths: no two lists of words are the same bytes."""
    encoded = [word.encode() for word in words]
    return head + b"".join(len(word).to_bytes(4, "big") + word for word in encoded)


def open_key(path: Path, *, create: bool) -> Key | None:
    """The key in the file; where there is none, a new one, or without ``create`` None.

    Raises OperatorError where the file cannot be read, is no key, or others may read it.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        if not create:
            return None
    except OSError as error:
        raise OperatorError(f"The key {path} cannot be read: {error.strerror}.") from None
    try:
        _create(path)
        return _read(path)
    except OSError as error:
        raise OperatorError(f"The key {path} cannot be made: {error.strerror}.") from None


def _read(path: Path) -> Key:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        text = file.read(256)
    if mode & 0o077:
        raise OperatorError(f"Others may read the key {path} (mode {mode:o}): chmod 600 {path}")
    try:
        return Key(bytes.fromhex(text.decode().removeprefix(_PREFIX)))
    except ValueError:
        raise OperatorError(
            f"{path} is no key of a server: put the right file back. Where it is lost, remove this one; "
            "secrets and logins have to be set again then."
        ) from None


def _create(path: Path) -> None:
    """Whole or not at all, and never over another one: of two that come at once, one is kept."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(handle, 0o600)
        os.write(handle, f"{_PREFIX}{secrets.token_hex(KEY_BYTES)}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        path.hardlink_to(fresh)
    except FileExistsError:
        pass
    finally:
        fresh.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
