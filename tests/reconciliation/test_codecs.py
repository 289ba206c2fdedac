"""What travels to and from the nodes: the chains' own encodings, and answers that are damaged."""

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.reconciliation.chain.abi import AbiArrays, AbiError, decode_number, encode_arguments
from tasks.reconciliation.chain.strkeys import StrkeyError, contract_bytes, decode_address, encode_address
from tasks.reconciliation.chain.xdr import ScVal, XdrError, XdrReader, data_entry, data_key, encode, entry_value

# Vectors made with stellar-sdk 16.1.1 for the 32 bytes 00 01 ... 1f.
CONTRACT = "CAAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB6N4O"
ACCOUNT = "GAAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB7JZX"
INSTANCE_KEY = "AAAABgAAAAEAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHwAAABQAAAAB"
PAGE_KEY = (
    "AAAABgAAAAEAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHwAAABAAAAABAAAAAwAAAA8AAAAJUG9zaXRpb25zAAAAAAAADgAAAAZt"
    "a3Qgw7wAAAAAAAMAAAAHAAAAAQ=="
)
PAGE_ENTRY = (
    "AAAABgAAAAAAAAABAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8AAAAQAAAAAQAAAAMAAAAPAAAACVBvc2l0aW9ucwAAAAAAAA4A"
    "AAAGbWt0IMO8AAAAAAADAAAABwAAAAEAAAAQAAAAAQAAAAIAAAARAAAAAQAAAAMAAAAPAAAABmFtb3VudAAAAAAACgAAAAAAAABAAAAAAAAA"
    "AAUAAAAPAAAAB291dGNvbWUAAAAADgAAAAN5ZXMAAAAADwAAAAVvd25lcgAAAAAAABIAAAAAAAAAAAABAgMEBQYHCAkKCwwNDg8QERITFBUW"
    "FxgZGhscHR4fAAAAEQAAAAEAAAADAAAADwAAAAZhbW91bnQAAAAAAAr/////////////////////AAAADwAAAAdvdXRjb21lAAAAAA4AAAAA"
    "AAAADwAAAAVvd25lcgAAAAAAABIAAAABAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)
PAGE_NAME = ScVal("vec", [ScVal("symbol", "Positions"), ScVal("string", "mkt ü".encode()), ScVal("u32", 7)])


def position(amount: int, outcome: str, owner: str) -> ScVal:
    fields = [("amount", ScVal("i128", amount)), ("outcome", ScVal("string", outcome.encode()))]
    return ScVal("map", [(ScVal("symbol", k), v) for k, v in [*fields, ("owner", ScVal("address", owner))]])


PAGE = ScVal("vec", [position(2**70 + 5, "yes", ACCOUNT), position(-1, "", CONTRACT)])


def test_storage_keys_and_entries_are_those_of_the_reference() -> None:
    assert data_key(CONTRACT, ScVal("instance")) == INSTANCE_KEY
    assert data_key(CONTRACT, PAGE_NAME) == PAGE_KEY
    assert data_entry(CONTRACT, PAGE_NAME, PAGE) == PAGE_ENTRY
    assert entry_value(PAGE_ENTRY) == PAGE


def test_addresses_are_those_of_the_reference() -> None:
    assert decode_address(ACCOUNT) == (False, bytes(range(32)))
    assert contract_bytes(CONTRACT) == bytes(range(32))
    assert encode_address(bytes(range(32)), is_contract=True) == CONTRACT


@pytest.mark.parametrize(
    "text", ["", "G", CONTRACT[:-1], ACCOUNT.lower(), ACCOUNT[:-1] + "A", ACCOUNT.replace("Q", "2")]
)
def test_a_mistyped_address_is_refused(text: str) -> None:
    with pytest.raises(StrkeyError):
        decode_address(text)


def test_an_account_is_no_contract() -> None:
    with pytest.raises(StrkeyError, match="not a contract"):
        contract_bytes(ACCOUNT)


values = st.recursive(
    st.one_of(
        st.integers(0, 2**32 - 1).map(lambda n: ScVal("u32", n)),
        st.integers(-(2**127), 2**127 - 1).map(lambda n: ScVal("i128", n)),
        st.binary(max_size=9).map(lambda b: ScVal("string", b)),
        st.sampled_from([ScVal("address", ACCOUNT), ScVal("address", CONTRACT), ScVal("symbol", "amount")]),
    ),
    lambda inner: st.lists(inner, max_size=4).map(lambda items: ScVal("vec", items)),
    max_leaves=12,
)


@given(values)
def test_a_value_survives_the_way(value: ScVal) -> None:
    assert XdrReader(encode(value)).scval() == value


@given(st.binary(max_size=200))
def test_damaged_storage_is_an_xdr_error_and_nothing_else(raw: bytes) -> None:
    with suppress(XdrError):
        entry_value(base64.b64encode(raw).decode())


def test_an_entry_that_ends_early_is_refused_at_every_place() -> None:
    raw = base64.b64decode(PAGE_ENTRY)
    for length in range(len(raw)):
        with pytest.raises(XdrError):
            entry_value(base64.b64encode(raw[:length]).decode())


def test_a_list_that_claims_a_billion_elements_is_refused() -> None:
    with pytest.raises(XdrError, match="does not fit"):
        XdrReader(bytes.fromhex("00000010000000013b9aca00")).scval()


def test_values_inside_values_have_an_end() -> None:
    nested = ScVal("u32", 1)
    for _ in range(40):
        nested = ScVal("vec", [nested])

    with pytest.raises(XdrError):
        XdrReader(encode(nested)).scval()


def test_arguments_are_encoded_as_the_specification_shows() -> None:
    """The specification's example f(uint256,bytes) has the same layout as a number and a text."""
    encoded = encode_arguments(0x123, "Hello, world!")

    words = [encoded[start : start + 32].hex() for start in range(0, len(encoded), 32)]
    assert [int(word, 16) for word in words[:3]] == [0x123, 0x40, 13]
    assert words[3] == b"Hello, world!".ljust(32, b"\0").hex()


@given(st.binary(max_size=400))
def test_damaged_answers_are_an_abi_error_and_nothing_else(raw: bytes) -> None:
    arrays = AbiArrays(raw)
    for read in (arrays.numbers, arrays.texts, arrays.addresses):
        with suppress(AbiError):
            read(0)


def test_an_array_that_claims_more_than_there_is_is_refused() -> None:
    with pytest.raises(AbiError, match="does not fit"):
        AbiArrays((32).to_bytes(32) + (2**200).to_bytes(32)).numbers(0)


def test_a_number_is_one_word() -> None:
    with pytest.raises(AbiError):
        decode_number(b"")
