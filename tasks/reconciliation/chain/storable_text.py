"""Texts from a chain, in a form that every database can hold."""


def storable_text(raw: bytes) -> str:
    r"""
    Decode a text; what is no UTF-8, or holds the NUL that PostgreSQL refuses, is shown as its bytes.

    >>> storable_text("ja::nein".encode()), storable_text(b"a\x00b"), storable_text(b"\xff")
    ('ja::nein', 'bytes:610062', 'bytes:ff')
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"bytes:{raw.hex()}"
    return f"bytes:{raw.hex()}" if "\x00" in text else text
