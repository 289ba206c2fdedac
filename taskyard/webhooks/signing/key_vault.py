"""
Keep endpoint secrets encrypted at rest, under master keys that can be rotated.

A sealed secret is ``v1.<key id>.<base64url of nonce and ciphertext>``: AES-256-GCM with the endpoint's id as
associated data, so a row copied to another endpoint does not open.

Source: NIST SP 800-38D (96-bit random nonces; far below the 2^32 messages a key may seal).
"""

import base64
import binascii
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION: Final = "v1"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


class VaultKeyError(ValueError):
    """The master keys in the settings cannot be used. The message names an entry by its place, never by its text."""


class SealedSecretError(Exception):
    """A sealed secret does not open: unknown key id, damaged, or sealed for another endpoint."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """
    One AES-256 key (32 bytes) and the id by which sealed secrets name it (1-32 of letters, digits, ``_``, ``-``).

    Raises:
        VaultKeyError: The id or the key's length is wrong.
    """

    id: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _KEY_ID.fullmatch(self.id):
            raise VaultKeyError("a master key's id has 1 to 32 letters, digits, '_' or '-'")
        if len(self.key) != _KEY_BYTES:
            raise VaultKeyError(f"a master key has {_KEY_BYTES} bytes, this one has {len(self.key)}")

    def reveal(self) -> str:
        """Return the form for the settings: ``id:base64``."""
        return f"{self.id}:{base64.b64encode(self.key).decode('ascii')}"


def new_master_key(key_id: str) -> MasterKey:
    """
    Make a random master key.

    Raises:
        VaultKeyError: The id is malformed.
    """
    return MasterKey(key_id, os.urandom(_KEY_BYTES))


class Vault:
    """
    Seals with the newest master key, opens with any; thread-safe.

    To rotate: put a new key in front, restart, `rewrap` all that `needs_rewrap`, then drop the old key.

    Raises:
        VaultKeyError: No key, or two keys with one id.
    """

    def __init__(self, keys: Sequence[MasterKey]) -> None:
        if not keys:
            raise VaultKeyError("at least one master key is needed")
        if len({key.id for key in keys}) != len(keys):
            raise VaultKeyError("two master keys have the same id")
        self._newest = keys[0].id
        self._ciphers = {key.id: AESGCM(key.key) for key in keys}

    @classmethod
    def from_text(cls, text: str) -> Self:
        """
        Read ``id:base64`` entries, newest first, separated by commas.

        Raises:
            VaultKeyError: An entry is malformed; it is named by its place, counted from 1.
        """
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        return cls([_master_key(entry, place) for place, entry in enumerate(entries, start=1)])

    def __repr__(self) -> str:
        return f"Vault(keys={list(self._ciphers)})"

    def seal(self, secret: str, endpoint_id: UUID) -> str:
        """Encrypt `secret` for one endpoint with the newest key."""
        nonce = os.urandom(_NONCE_BYTES)
        data = self._ciphers[self._newest].encrypt(nonce, secret.encode(), _bound_to(endpoint_id, self._newest))
        return f"{_VERSION}.{self._newest}.{base64.urlsafe_b64encode(nonce + data).decode('ascii')}"

    def open(self, sealed: str, endpoint_id: UUID) -> str:
        """
        Decrypt what was sealed for this endpoint, with the key it names.

        Raises:
            SealedSecretError: The text is malformed or damaged, its key is not among ours, or it is another endpoint's.
        """
        key_id, data = _parts(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SealedSecretError(f"sealed with the master key {key_id!r}, which is not in the settings")
        try:
            opened = cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound_to(endpoint_id, key_id))
        except (InvalidTag, ValueError) as error:
            raise SealedSecretError("damaged, or sealed for another endpoint or with another key") from error
        return opened.decode()

    def needs_rewrap(self, sealed: str) -> bool:
        """
        Tell whether `sealed` names a key that is not the newest.

        Raises:
            SealedSecretError: The text is malformed.
        """
        return _parts(sealed)[0] != self._newest

    def rewrap(self, sealed: str, endpoint_id: UUID) -> str:
        """
        Seal the same secret again with the newest key.

        Raises:
            SealedSecretError: As `open`.
        """
        return self.seal(self.open(sealed, endpoint_id), endpoint_id)


def _master_key(entry: str, place: int) -> MasterKey:
    key_id, colon, encoded = entry.partition(":")
    if not colon:
        raise VaultKeyError(f"master key {place}: it is written id:base64")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        # `from None`: the cause could carry the key's text into a traceback
        raise VaultKeyError(f"master key {place}: its second part is not base64") from None
    try:
        return MasterKey(key_id, key)
    except VaultKeyError as error:
        raise VaultKeyError(f"master key {place}: {error}") from error


def _parts(sealed: str) -> tuple[str, bytes]:
    version, _, rest = sealed.partition(".")
    key_id, _, encoded = rest.partition(".")
    if version != _VERSION or not _KEY_ID.fullmatch(key_id):
        raise SealedSecretError("not a sealed secret of a known version")
    try:
        return key_id, base64.b64decode(encoded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise SealedSecretError("not base64") from error


def _bound_to(endpoint_id: UUID, key_id: str) -> bytes:
    return b"taskyard endpoint secret %s %s" % (endpoint_id.bytes, key_id.encode("ascii"))
