"""The part of Ethereum's contract ABI that we speak: words, texts, and arrays of them."""

WORD = 32  # bytes


class AbiError(ValueError):
    """The bytes are not what the ABI says."""


def encode_arguments(*values: str | int) -> bytes:
    """
    Encode texts and unsigned numbers as the arguments of a call.

    >>> encode_arguments(1, 2).hex()[-1]
    '2'

    Source: Solidity documentation, "Contract ABI Specification".
    """
    heads, tails = b"", b""
    start = WORD * len(values)
    for value in values:
        if isinstance(value, int):
            heads += _word(value)
            continue
        heads += _word(start + len(tails))
        text = value.encode()
        tails += _word(len(text)) + text + bytes(-len(text) % WORD)
    return heads + tails


def decode_number(data: bytes) -> int:
    """
    Decode one unsigned number.

    Raises:
        AbiError: It is not one word.
    """
    if len(data) != WORD:
        raise AbiError(f"{len(data)} bytes are not a number")
    return int.from_bytes(data)


class AbiArrays:
    """Reads an answer that consists of arrays; ``place`` counts them from 0. Every method raises AbiError."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def numbers(self, place: int) -> list[int]:
        """Decode ``uint256[]``."""
        start = self._number(place * WORD)
        return [self._number(start + WORD * (i + 1)) for i in range(self._length(start))]

    def addresses(self, place: int) -> list[str]:
        """Decode ``address[]`` as lower-case ``0x`` texts."""
        numbers = self.numbers(place)
        if any(number >> 160 for number in numbers):
            raise AbiError("an address is longer than 20 bytes")
        return [f"0x{number:040x}" for number in numbers]

    def texts(self, place: int) -> list[bytes]:
        """Decode ``string[]`` as bytes: a contract may hold what is not UTF-8."""
        start = self._number(place * WORD)
        first = start + WORD
        return [self._text(first + self._number(first + WORD * i)) for i in range(self._length(start))]

    def _text(self, start: int) -> bytes:
        return self._slice(start + WORD, self._number(start))

    def _length(self, start: int) -> int:
        """An array of n elements has n words at least; a larger number is a lie that would cost memory."""
        length = self._number(start)
        if start + WORD * (length + 1) > len(self._data):
            raise AbiError(f"an array of {length} does not fit")
        return length

    def _number(self, start: int) -> int:
        return int.from_bytes(self._slice(start, WORD))

    def _slice(self, start: int, length: int) -> bytes:
        if start + length > len(self._data):
            raise AbiError(f"{length} bytes at {start} lie behind the end")
        return self._data[start : start + length]


def _word(number: int) -> bytes:
    return number.to_bytes(WORD)
