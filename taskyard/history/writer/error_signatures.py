"""Error signatures: one short text for all failures that have the same cause, so that they can be grouped."""

import hashlib
import re

SIGNATURE_DIGITS = 16
VARIABLE_PARTS = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<uuid>"),
    (re.compile(r"\b(?:0x[0-9a-f]+|(?=[a-f]*[0-9])[0-9a-f]{8,})\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"\d+"), "<n>"),
)
FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line \d+, in (?P<function>\S+)', re.MULTILINE)


def error_signature(error_type: str, message: str, traceback: str | None) -> str:
    """
    Return 16 hex digits of SHA-256 over three lines: error type, generalised message, last frame.

    The message is generalised: UUIDs, hexadecimal numbers (from 8 digits, or after 0x) and decimal numbers are replaced
    by a placeholder. The last frame is file name and function without folder and line number, so that a signature
    survives a deployment to another folder and edits elsewhere in the file.

    >>> one = error_signature("TimeoutError", "order 17 took 3.5 s", None)
    >>> one == error_signature("TimeoutError", "order 4 took 12.25 s", None)
    True
    """
    general = message
    for pattern, placeholder in VARIABLE_PARTS:
        general = pattern.sub(placeholder, general)
    text = "\n".join((error_type, general, _last_frame(traceback or "")))
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:SIGNATURE_DIGITS]


def _last_frame(traceback: str) -> str:
    last = ""
    for frame in FRAME.finditer(traceback):
        last = f"{frame['file'].replace(chr(92), '/').rpartition('/')[2]}:{frame['function']}"
    return last
