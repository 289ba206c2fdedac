"""The part of Stellar's XDR that contract storage needs: keys to ask for, entries that come back."""

import base64
import struct
from typing import Any, Literal, NamedTuple

from tasks.reconciliation.chain.strkeys import contract_bytes, decode_address, encode_address

CONTRACT_DATA = 6  # LedgerEntryType
PERSISTENT = 1  # ContractDataDurability
MAX_DEPTH = 16  # of values inside values

type Kind = Literal["u32", "i128", "bytes", "string", "symbol", "vec", "map", "address", "instance"]
TAGS: dict[Kind, int] = {
    "u32": 3,
    "i128": 10,
    "bytes": 13,
    "string": 14,
    "symbol": 15,
    "vec": 16,
    "map": 17,
    "address": 18,
    "instance": 20,
}
KINDS = {tag: kind for kind, tag in TAGS.items()}


class XdrError(ValueError):
    """The bytes are not what the XDR says, or a kind of value that positions do not use."""


class ScVal(NamedTuple):
    """
    A value of a contract: ``string`` and ``bytes`` hold bytes, ``symbol`` and ``address`` text, numbers an int.

    ``vec`` holds a list of values, ``map`` a list of pairs of them, ``instance`` nothing.
    """

    kind: Kind
    value: Any = None


def data_key(contract: str, key: ScVal) -> str:
    """Return the base64 ``LedgerKey`` of a contract's persistent entry; ``contract`` is a ``C...`` address."""
    contract_address = struct.pack(">I", 1) + contract_bytes(contract)
    raw = struct.pack(">I", CONTRACT_DATA) + contract_address + encode(key) + struct.pack(">I", PERSISTENT)
    return base64.b64encode(raw).decode()


def data_entry(contract: str, key: ScVal, value: ScVal) -> str:
    """Return the base64 ``LedgerEntryData`` that a node gives for such an entry."""
    contract_address = struct.pack(">I", 1) + contract_bytes(contract)
    head = struct.pack(">II", CONTRACT_DATA, 0)
    return base64.b64encode(
        head + contract_address + encode(key) + struct.pack(">I", PERSISTENT) + encode(value)
    ).decode()


def entry_value(entry: str) -> ScVal:
    """
    Return the value in a base64 ``LedgerEntryData`` of a contract.

    Raises:
        XdrError: It is damaged, or no contract data.
    """
    try:
        reader = XdrReader(base64.b64decode(entry, validate=True))
    except ValueError as error:
        raise XdrError("an entry is not base64") from error
    if reader.number() != CONTRACT_DATA:
        raise XdrError("an entry is no contract data")
    reader.number()  # extension point, always 0
    reader.address()
    reader.scval()  # the key that was asked for
    reader.number()  # durability
    return reader.scval()


def encode(value: ScVal) -> bytes:
    """Encode one value; a tag and its content, in multiples of four bytes."""
    content: bytes
    match value.kind:
        case "u32":
            content = struct.pack(">I", value.value)
        case "i128":
            content = int(value.value).to_bytes(16, signed=True)
        case "string" | "bytes":
            content = _opaque(value.value)
        case "symbol":
            content = _opaque(value.value.encode())
        case "vec":
            content = struct.pack(">II", 1, len(value.value)) + b"".join(map(encode, value.value))
        case "map":
            items = b"".join(encode(key) + encode(item) for key, item in value.value)
            content = struct.pack(">II", 1, len(value.value)) + items
        case "address":
            is_contract, raw = decode_address(value.value)
            content = (struct.pack(">I", 1) if is_contract else struct.pack(">II", 0, 0)) + raw
        case _:  # an instance has no content
            content = b""
    return struct.pack(">I", TAGS[value.kind]) + content


class XdrReader:
    """Reads XDR from the start; every method raises XdrError where the bytes end too early or do not fit."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self) -> int:
        """Read an unsigned 32-bit number."""
        return int.from_bytes(self._take(4))

    def address(self) -> str:
        """Read an account's or a contract's address."""
        kind = self.number()
        if kind == 0 and self.number() == 0:
            return encode_address(self._take(32), is_contract=False)
        if kind == 1:
            return encode_address(self._take(32), is_contract=True)
        raise XdrError("an address is neither an account's nor a contract's")

    def scval(self, depth: int = 0) -> ScVal:
        """Read one value."""
        kind = KINDS.get(self.number())
        if kind is None or depth > MAX_DEPTH:
            raise XdrError("a value of a kind that positions do not use")
        return ScVal(kind, self._content(kind, depth + 1))

    def _content(self, kind: Kind, depth: int) -> Any:
        content: Any
        match kind:
            case "u32":
                content = self.number()
            case "i128":
                content = int.from_bytes(self._take(16), signed=True)
            case "string" | "bytes":
                content = self._opaque()
            case "symbol":
                content = self._opaque().decode("ascii", "replace")
            case "vec":
                content = [self.scval(depth) for _ in range(self._length())]
            case "map":
                content = [(self.scval(depth), self.scval(depth)) for _ in range(self._length())]
            case "address":
                content = self.address()
            case "instance":
                raise XdrError("a contract's instance is no position")
        return content

    def _length(self) -> int:
        """The length of an optional list; each element takes four bytes at least."""
        length = self.number() and self.number()  # a list that is absent has no length
        if length * 4 > len(self._data) - self._at:
            raise XdrError(f"a list of {length} does not fit")
        return length

    def _opaque(self) -> bytes:
        length = self.number()
        content = self._take(length)
        self._take(-length % 4)
        return content

    def _take(self, length: int) -> bytes:
        if self._at + length > len(self._data):
            raise XdrError("the bytes end too early")
        self._at += length
        return self._data[self._at - length : self._at]


def _opaque(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content + bytes(-len(content) % 4)
