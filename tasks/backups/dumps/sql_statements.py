r"""
Split a plain dump into statements as psql does: quotes, dollar quotes, comments, COPY data, function bodies.

Source: PostgreSQL, src/fe_utils/psqlscan.l, and the manual's "Lexical Structure".
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import pairwise
from typing import NamedTuple

MAX_WORDS = 64  # of one statement that are kept
COPY_END = b"\\."

ROWS = 500  # of COPY data in one piece

_MARKS = rb"""
    (?P<comment>--[^\r\n]*) | (?P<block>/\*) | (?P<escape>(?<![\w$\x80-\xff])[eE]') | (?P<quote>'[^']*'?) | (?P<name>")
    | (?P<dollar>(?<![\w$\x80-\xff])\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$)
    | (?P<open>[(\[]) | (?P<close>[)\]])"""
_NESTED_TOKEN = re.compile(_MARKS, re.VERBOSE)
_TOKEN = re.compile(_MARKS + rb" | (?P<word>[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*) | (?P<end>;)", re.VERBOSE)
_FIRST_TOKEN = re.compile(_TOKEN.pattern + rb" | (?P<other>\S)", re.VERBOSE)
# A whole INSERT on one line, as pg_dump --inserts writes millions of: matched at once, for speed.
_INSERT = re.compile(
    rb"""INSERT\ INTO\ [\w."\x80-\xff]+\ (?:\([\w,.\ "\x80-\xff]*\)\ )?VALUES[ ]
    \((?:[^'"$()\\;/eE-] | [eE](?!') | -(?!-) | '[^']*')*+\);\r?\n""",
    re.VERBOSE,
)
_BLOCK_COMMENT = re.compile(rb"/\*|\*/")
_ESCAPED = re.compile(rb"\\.|''|'", re.DOTALL)
_ROUTINE = re.compile(r"CREATE (OR REPLACE )?(FUNCTION|PROCEDURE)\b")


class SqlPieceKind(Enum):
    """What a piece of a dump is."""

    BETWEEN = auto()  # space and comments between statements
    COMMAND = auto()  # a line for psql itself, such as \connect
    STATEMENT = auto()  # a part of a statement
    END = auto()  # the last part of a statement; it carries the words
    COPY_DATA = auto()  # rows, and the line that ends them


class SqlPiece(NamedTuple):
    """A part of a dump; all parts together are the dump."""

    kind: SqlPieceKind
    text: bytes
    words: tuple[str, ...] = ()  # outside of parentheses: keywords in upper case, quoted names with their quotes


class UnfinishedSqlError(ValueError):
    """The dump ends within a statement, a quote, a comment or rows."""


def split_statements(lines: Iterable[bytes]) -> Iterator[SqlPiece]:
    """
    Yield a dump's pieces, in order.

    Raises:
        UnfinishedSqlError: The dump ends too early.
    """
    scanner = _Scanner()
    rows: list[bytes] = []
    for line in lines:
        if not scanner.in_rows:
            if _INSERT.fullmatch(line) and scanner.is_neutral():
                yield SqlPiece(SqlPieceKind.END, line, ("INSERT",))
            else:
                yield from scanner.scan(line)
            continue
        rows.append(line)
        if line.startswith(COPY_END) and line.rstrip(b"\r\n") == COPY_END:
            scanner.in_rows = False
        if len(rows) >= ROWS or not scanner.in_rows:
            yield SqlPiece(SqlPieceKind.COPY_DATA, b"".join(rows))
            rows = []
    if scanner.in_rows or scanner.quote or scanner.comment_depth or scanner.is_open:
        raise UnfinishedSqlError("its end is missing: the dump was cut off")


@dataclass(slots=True)
class _Scanner:
    """The state between two lines; psql keeps the same facts."""

    quote: bytes = b""  # what ends the quote that is open: ', ", or $tag$
    has_escapes: bool = False  # in this quote a backslash protects the next character
    comment_depth: int = 0
    parentheses: int = 0
    begin_depth: int = 0  # of BEGIN ATOMIC ... END in a routine's body
    is_open: bool = False  # a statement has begun
    in_rows: bool = False
    backslash_quotes: bool = False  # standard_conforming_strings is off
    name_parts: list[bytes] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def is_neutral(self) -> bool:
        """Return whether a line is read on its own: nothing is open, and backslashes mean nothing."""
        return not (self.quote or self.comment_depth or self.is_open or self.backslash_quotes)

    def scan(self, line: bytes) -> Iterator[SqlPiece]:
        """Yield the pieces of a line that is not a row."""
        place = begin = 0
        while place < len(line):
            if self.comment_depth or self.quote:
                place = self._skip(line, place)
                continue
            found = self._pattern().search(line, place)
            if found is None:
                break
            place = found.end()
            if self.backslash_quotes and found.lastgroup == "quote":
                self.quote, self.has_escapes, place = b"'", True, found.start() + 1
            if not self.is_open and found.lastgroup not in {"comment", "block"}:
                if begin < found.start():
                    yield SqlPiece(SqlPieceKind.BETWEEN, line[begin : found.start()])
                begin = found.start()
                if found[0] == b"\\":
                    yield SqlPiece(SqlPieceKind.COMMAND, line[begin:])
                    return
                self.is_open = True
            if self._ends(found):
                yield SqlPiece(SqlPieceKind.END, line[begin:place], self._finish())
                begin = place
        if rest := line[begin:]:
            yield SqlPiece(SqlPieceKind.STATEMENT if self.is_open else SqlPieceKind.BETWEEN, rest)

    def _pattern(self) -> re.Pattern[bytes]:
        if not self.is_open:
            return _FIRST_TOKEN
        return _NESTED_TOKEN if self.parentheses else _TOKEN

    def _ends(self, found: re.Match[bytes]) -> bool:
        """Note a token; return whether it ends the statement."""
        text = found[0]
        match found.lastgroup:
            case "block":
                self.comment_depth = 1
            case "escape":
                self.quote, self.has_escapes = b"'", True
            case "quote" if not self.quote and (len(text) == 1 or not text.endswith(b"'")):
                self.quote, self.has_escapes = b"'", False
            case "name":
                self.quote, self.has_escapes, self.name_parts = text, False, []
            case "dollar":
                self.quote, self.has_escapes = text, False
            case "open":
                self.parentheses += 1
            case "close":
                self.parentheses = max(0, self.parentheses - 1)
            case "word":
                self._take_word(text.decode(errors="replace").upper())
            case "end":
                return not self.parentheses and not self.begin_depth
        return False

    def _skip(self, line: bytes, place: int) -> int:
        """Return where the open comment or quote ends; the line's end if it goes on."""
        if self.comment_depth:
            found = _BLOCK_COMMENT.search(line, place)
            if found is None:
                return len(line)
            self.comment_depth += 1 if found[0] == b"/*" else -1
            return found.end()
        end = self._find_quote(line, place)
        if self.quote == b'"':
            self.name_parts.append(line[place : len(line) if end < 0 else end])
        if end < 0:
            return len(line)
        if self.quote == b'"':
            self._keep(f'"{b"".join(self.name_parts).decode(errors="replace")}"')
        place = end + len(self.quote)
        self.quote = b""
        return place

    def _find_quote(self, line: bytes, place: int) -> int:
        if not self.has_escapes:
            return line.find(self.quote, place)
        ends = (found.start() for found in _ESCAPED.finditer(line, place) if found[0] == b"'")
        return next(ends, -1)

    def _take_word(self, word: str) -> None:
        if not self.parentheses and word in {"BEGIN", "CASE", "END"} and _ROUTINE.match(" ".join(self.words[:4])):
            if word == "BEGIN" or (word == "CASE" and self.begin_depth):
                self.begin_depth += 1
            elif word == "END" and self.begin_depth:
                self.begin_depth -= 1
        self._keep(word)

    def _keep(self, word: str) -> None:
        if not self.parentheses and len(self.words) < MAX_WORDS:
            self.words.append(word)

    def _finish(self) -> tuple[str, ...]:
        words, self.words, self.is_open = tuple(self.words), [], False
        if words[:1] == ("COPY",) and ("FROM", "STDIN") in pairwise(words):
            self.in_rows = True
        if words[:2] == ("SET", "STANDARD_CONFORMING_STRINGS"):
            self.backslash_quotes = words[-1] == "OFF"
        return words
