"""A column for amounts: whole numbers of the smallest unit, of any size a chain can hold."""

from decimal import Decimal
from typing import Any

from sqlalchemy import Dialect, Numeric, String
from sqlalchemy.types import TypeDecorator, TypeEngine

DIGITS = 100  # an EVM word has 78; a market's total may need some more


class Amount(TypeDecorator[int]):
    """
    An `int` in Python, `numeric` in PostgreSQL, text in SQLite, whose own numbers lose digits above 2^63.

    SQLite can therefore neither sum nor order it; both are done in Python.
    """

    impl = Numeric(DIGITS, 0)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the type of the database at hand."""
        return dialect.type_descriptor(String(DIGITS + 1) if dialect.name == "sqlite" else Numeric(DIGITS, 0))

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        """Refuse what is not a whole number: a float here is a bug of the caller."""
        if value is None:
            return None
        if type(value) is not int:
            raise TypeError(f"an amount is an int, not {value!r}")
        return str(value) if dialect.name == "sqlite" else Decimal(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Return an `int`."""
        return None if value is None else int(value)
