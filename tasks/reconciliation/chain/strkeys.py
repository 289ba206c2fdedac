"""Stellar's text form of addresses: ``G...`` for accounts, ``C...`` for contracts."""

import base64
import binascii

ACCOUNT, CONTRACT = 6 << 3, 2 << 3  # version bytes
RAW_BYTES = 35  # version, 32 bytes of key or hash, checksum


class StrkeyError(ValueError):
    """Not an address of an account or a contract, or one with a typing error."""


def encode_address(raw: bytes, *, is_contract: bool) -> str:
    """
    Write 32 bytes as an address.

    Source: SEP-23; the checksum is CRC-16/XMODEM, little endian.
    """
    body = bytes([CONTRACT if is_contract else ACCOUNT]) + raw
    return base64.b32encode(body + _checksum(body)).decode()


def decode_address(text: str) -> tuple[bool, bytes]:
    """
    Return whether it is a contract, and its 32 bytes.

    Raises:
        StrkeyError: Wrong alphabet, length, version or checksum.
    """
    try:
        raw = base64.b32decode(text)
    except (binascii.Error, ValueError) as error:
        raise StrkeyError(f"{text[:80]!r} is not an address") from error
    if len(raw) != RAW_BYTES or raw[0] not in (ACCOUNT, CONTRACT) or _checksum(raw[:-2]) != raw[-2:]:
        raise StrkeyError(f"{text[:80]!r} is not an address")
    return raw[0] == CONTRACT, raw[1:-2]


def contract_bytes(text: str) -> bytes:
    """
    Return the 32 bytes of a contract's address.

    Raises:
        StrkeyError: Not a contract's address.
    """
    is_contract, raw = decode_address(text)
    if not is_contract:
        raise StrkeyError(f"{text!r} is an account, not a contract")
    return raw


def _checksum(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")
