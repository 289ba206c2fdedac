"""Endpoint secrets lie encrypted, bound to their endpoint, under keys that can be rotated."""

import base64
import contextlib
import traceback
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.webhooks.signing.key_vault import MasterKey, SealedSecretError, Vault, VaultKeyError, new_master_key

OLD, NEW = MasterKey("k1", b"1" * 32), MasterKey("k2", b"2" * 32)
ENDPOINT = uuid4()


@given(st.text())
def test_what_was_sealed_opens_again(secret: str) -> None:
    vault = Vault([NEW])
    assert vault.open(vault.seal(secret, ENDPOINT), ENDPOINT) == secret


def test_a_sealed_secret_shows_nothing_and_never_repeats() -> None:
    vault = Vault([NEW])
    first, second = vault.seal("whsec_x", ENDPOINT), vault.seal("whsec_x", ENDPOINT)
    assert first != second
    assert first.startswith("v1.k2.")
    assert b"whsec" not in base64.urlsafe_b64decode(first.split(".")[2])


def test_a_secret_copied_to_another_endpoint_does_not_open() -> None:
    vault = Vault([NEW])
    with pytest.raises(SealedSecretError, match="another endpoint"):
        vault.open(vault.seal("whsec_x", ENDPOINT), uuid4())


def test_the_master_key_can_be_rotated_without_a_moment_of_closed_secrets() -> None:
    sealed = Vault([OLD]).seal("whsec_x", ENDPOINT)
    both = Vault([NEW, OLD])
    assert both.open(sealed, ENDPOINT) == "whsec_x"
    assert both.needs_rewrap(sealed)
    rewrapped = both.rewrap(sealed, ENDPOINT)
    assert not both.needs_rewrap(rewrapped)
    assert Vault([NEW]).open(rewrapped, ENDPOINT) == "whsec_x"
    with pytest.raises(SealedSecretError, match="'k1'"):
        Vault([NEW]).open(sealed, ENDPOINT)


def test_a_key_that_took_anothers_id_does_not_open() -> None:
    sealed = Vault([OLD]).seal("whsec_x", ENDPOINT)
    with pytest.raises(SealedSecretError):
        Vault([MasterKey("k1", b"3" * 32)]).open(sealed, ENDPOINT)


@given(st.data())
def test_a_changed_text_never_opens_to_another_secret(data: st.DataObject) -> None:
    vault = Vault([NEW, OLD])
    sealed = vault.seal("whsec_x", ENDPOINT)
    place = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:place] + data.draw(st.characters()) + sealed[place + 1 :]
    with contextlib.suppress(SealedSecretError):
        assert vault.open(changed, ENDPOINT) == "whsec_x"


def test_a_changed_byte_of_the_sealed_data_is_noticed() -> None:
    vault = Vault([NEW])
    head, _, encoded = vault.seal("whsec_x", ENDPOINT).rpartition(".")
    data = bytearray(base64.urlsafe_b64decode(encoded))
    for place in range(len(data)):
        data[place] ^= 1
        with pytest.raises(SealedSecretError):
            vault.open(f"{head}.{base64.urlsafe_b64encode(data).decode()}", ENDPOINT)
        data[place] ^= 1


@pytest.mark.parametrize(
    "sealed", ["", "whsec_plain", "v1", "v1.k2", "v1.k2.", "v1.k2.!!", "v1.k2.AAAA", "v2.k2.AAAA", "v1.ü.AA"]
)
def test_what_is_not_sealed_is_refused(sealed: str) -> None:
    with pytest.raises(SealedSecretError):
        Vault([NEW]).open(sealed, ENDPOINT)


def test_keys_are_read_newest_first() -> None:
    vault = Vault.from_text(f" {NEW.reveal()} ,{OLD.reveal()},")
    assert repr(vault) == "Vault(keys=['k2', 'k1'])"
    assert vault.seal("x", ENDPOINT).startswith("v1.k2.")


KEY_TEXT = base64.b64encode(b"s" * 32).decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one master key"),
        (KEY_TEXT, "master key 1: it is written id:base64"),
        (f"k1:{KEY_TEXT},k2", "master key 2"),
        (f"k1:{KEY_TEXT},k1:{KEY_TEXT}", "same id"),
        (f"k 1:{KEY_TEXT}", "id has 1 to 32"),
        (f"{KEY_TEXT}:k1", "master key 1"),
        (f"k1:{KEY_TEXT}x", "not base64"),
        (f"k1:{KEY_TEXT[:-4]}", "has 32 bytes, this one has 30"),
    ],
)
def test_bad_master_keys_are_named_by_place_and_never_shown(text: str, message: str) -> None:
    with pytest.raises(VaultKeyError, match=message) as caught:
        Vault.from_text(text)
    assert KEY_TEXT[:8] not in "".join(traceback.format_exception_only(caught.value))
    assert KEY_TEXT[:8] not in repr(caught.value.__cause__)


def test_keys_show_in_no_repr() -> None:
    key = new_master_key("k9")
    assert repr(key) == "MasterKey(id='k9')"
    assert repr(Vault([key])) == "Vault(keys=['k9'])"
    assert Vault.from_text(key.reveal()).seal("x", ENDPOINT).startswith("v1.k9.")
