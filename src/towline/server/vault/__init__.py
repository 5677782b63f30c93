"""Secrets and logins: kept encrypted in the store, with a key that is not in it."""

from towline.server.vault.key import Key, open_key
from towline.server.vault.vault import KEY_FILE, Entry, Vault, VaultError

__all__ = ["KEY_FILE", "Entry", "Key", "Vault", "VaultError", "open_key"]
