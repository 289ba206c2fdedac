"""Tables on a terminal or in a pipe: as wide as the terminal, with ids in full."""

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import click

from taskyard.cli.kit.output import MAX_CELL, printable

GAP = "  "
NARROWEST = 8  # characters of a column that is wrapped
UNBROKEN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{20,}|[\d: -]{16,19}")  # ids and times
ID_COLUMNS = frozenset({"id", "run", "run_id", "market", "endpoint", "name", "target"})  # to be copied whole
NEVER_HIDDEN = frozenset({"state", "error", "result", "health"})  # what a listing is read for
MAX_LINES = 2  # of one row


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """
    Print rows with a header, within the width of the terminal; a pipe gets one line per row.

    Ids and times are never cut. Other columns are wrapped, and where that does not do, columns are left out from the
    right, with a note on stderr.
    """
    limits = [None if name in ID_COLUMNS else MAX_CELL for name in columns]
    cells = [[printable(value, limit=limit) for value, limit in zip(row, limits, strict=True)] for row in rows]
    width = _terminal_width()
    kept = list(range(len(columns)))
    widths = _natural_widths(columns, cells)
    if width is not None:
        kept = _choose_columns(columns, cells, width)
        widths = _fit([widths[index] for index in kept], [_is_fixed(columns, cells, index) for index in kept], width)
    for line in (list(columns), *cells):
        _print_row([line[index] for index in kept], widths)
    if left_out := [name for index, name in enumerate(columns) if index not in kept]:
        click.echo(f"hidden to fit the terminal: {', '.join(left_out)}; --json shows all", err=True)


def _terminal_width() -> int | None:
    """Return the width to keep to; None: a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _natural_widths(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(columns, *cells, strict=True)]


def _is_fixed(columns: Sequence[str], cells: Sequence[Sequence[str]], index: int) -> bool:
    """Whether a column is too narrow to be wrapped, or holds ids, names or times."""
    if columns[index] in ID_COLUMNS:
        return True
    texts = [row[index] for row in cells]
    is_narrow = max(map(len, (columns[index], *texts))) <= NARROWEST
    return is_narrow or any(UNBROKEN.fullmatch(text) for text in texts)


def _choose_columns(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns that fit."""
    natural = _natural_widths(columns, cells)
    least = [each if _is_fixed(columns, cells, i) else _least(each, columns[i]) for i, each in enumerate(natural)]
    # What does not fit even beside the first column alone, such as a long name, hides no other.
    kept = [i for i, each in enumerate(least) if i == 0 or least[0] + len(GAP) + each <= width]
    for index in reversed(kept[1:]):
        if sum(least[i] for i in kept) + len(GAP) * (len(kept) - 1) <= width:
            break
        if columns[index] not in NEVER_HIDDEN:
            kept.remove(index)
    return kept


def _least(natural: int, column: str) -> int:
    """Return how narrow a column may become: half of its text, and its name."""
    return max(-(-natural // MAX_LINES), len(column), NARROWEST)


def _fit(widths: Sequence[int], fixed: Sequence[bool], width: int) -> list[int]:
    """Narrow the widest columns that may be wrapped, until all fit."""
    fitted = list(widths)
    while sum(fitted) + len(GAP) * (len(fitted) - 1) > width:
        loose = [i for i, is_fixed in enumerate(fixed) if not is_fixed and fitted[i] > NARROWEST]
        if not loose:
            break
        fitted[max(loose, key=fitted.__getitem__)] -= 1
    return fitted


def _print_row(texts: Sequence[str], widths: Sequence[int]) -> None:
    parts = [textwrap.wrap(text, width) or [""] for text, width in zip(texts, widths, strict=True)]
    for line in range(max(map(len, parts), default=0)):
        shown = [(part[line] if line < len(part) else "").ljust(w) for part, w in zip(parts, widths, strict=True)]
        click.echo(GAP.join(shown).rstrip())
