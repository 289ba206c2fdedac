r"""Splitting a plain dump: what lies in quotes, comments and rows is never a statement, wherever the dump is cut."""

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.backups.dumps.sql_statements import PieceKind, UnfinishedSqlError, split_statements

FUNCTION = b"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $_$\nCREATE DATABASE x;\nGRANT ALL ON t TO bob;\n$_$;"
ATOMIC = b"CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); SELECT CASE WHEN true THEN 1 END; END;"


def isolated(dump: bytes) -> tuple[list[bytes], bool]:
    """The whole statements of a dump, rows as one of their own, and whether it ended where it may."""
    statements: list[bytes] = []
    begun, rows, everything = b"", b"", b""
    try:
        for piece in split_statements(dump.splitlines(keepends=True)):
            everything += piece.text
            if piece.kind is PieceKind.COPY_DATA:
                rows += piece.text
            elif rows:
                statements, rows = [*statements, rows], b""
            if piece.kind in {PieceKind.STATEMENT, PieceKind.END}:
                begun += piece.text
            if piece.kind in {PieceKind.END, PieceKind.COMMAND}:
                statements, begun = [*statements, begun or piece.text], b""
    except UnfinishedSqlError:
        assert dump.startswith(everything)
        return statements, False
    assert everything == dump
    return [*statements, rows] if rows else statements, True


@pytest.mark.parametrize(
    "statement",
    [
        b"SELECT ';';",
        b"SELECT 'it''s; ''';",
        rb"SELECT E'it\'s; \\';",
        rb"SELECT 'C:\';",
        b'SELECT ";" FROM "a""b;";',
        b"SELECT $$;$$, $a$ $$; $b$ ' $a$;",
        b"SELECT a$b$c, 1;",
        b"SELECT 1 -- not yet;\n + 1;",
        b"SELECT 1 /* a /* b; */ ; */ + 1;",
        b"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);",
        b"SELECT 'line\nCREATE DATABASE x;\n';",
        b"INSERT INTO public.t VALUES (1, 'GRANT ALL; ''', NULL);\n",
        b"INSERT INTO public.t VALUES (E'\\';', 1);\n",
        FUNCTION,
        ATOMIC,
        b";",
        b"SELECT 'gr\xc3\xbc\xc3\x9fe; \xff';",
    ],
)
def test_a_statement_is_one_whatever_it_holds(statement: bytes) -> None:
    found, is_whole = isolated(statement + b"\nSELECT 2;\n")

    assert (found[0].rstrip(b"\n"), found[1:], is_whole) == (statement.rstrip(b"\n"), [b"SELECT 2;"], True)


def test_rows_are_no_statements_and_end_at_their_own_line() -> None:
    rows = b"1\tGRANT x;\n\\\\.\n'\t$$\n\\.x\n\\.\n"

    assert isolated(b"COPY public.t (a) FROM stdin;\n" + rows + b"SELECT 1;\n") == (
        [b"COPY public.t (a) FROM stdin;", rows, b"SELECT 1;"],
        True,
    )


def test_a_copy_from_a_name_has_no_rows() -> None:
    assert isolated(b"COPY t FROM 'stdin';\nSELECT 1;\n")[0][1:] == [b"SELECT 1;"]


def test_backslashes_escape_while_the_dump_says_so() -> None:
    dump = rb"""SET standard_conforming_strings = off;
SELECT 'a\'; b';
SET standard_conforming_strings = on;
SELECT 'a\';
"""
    assert isolated(dump)[0][1::2] == [rb"SELECT 'a\'; b';", rb"SELECT 'a\';"]


def test_a_command_of_psql_is_one_line() -> None:
    assert isolated(b"SELECT 1;\n\\connect 'a;b'\nSELECT 2;\n")[0] == [b"SELECT 1;", b"\\connect 'a;b'\n", b"SELECT 2;"]


ANY = st.text(alphabet=st.sampled_from(list("ab;'\"$-/*() \\\n\té")), max_size=12).map(str.encode)
LINE = ANY.map(lambda text: text.replace(b"\n", b" "))


def dollar(body: bytes) -> bytes:
    return b"$zz$" + body + b"$zz$"


VALUE = st.one_of(
    ANY.map(lambda text: b"'" + text.replace(b"'", b"''") + b"'"),
    ANY.map(lambda text: b"E'" + text.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"),
    ANY.map(lambda text: b'"' + text.replace(b'"', b'""') + b'"'),
    ANY.map(dollar),
    ANY.map(lambda text: b"/*" + text.replace(b"*", b"").replace(b"/", b"") + b"*/ 1"),
    LINE.map(lambda text: b"-- " + text + b"\n 1"),
    ANY.map(lambda text: b"(1; '" + text.replace(b"'", b"''") + b"')"),
)
STATEMENT = st.lists(VALUE, min_size=1, max_size=4).map(lambda values: [b"SELECT " + b", ".join(values) + b";"])
INSERT = LINE.map(lambda text: [b"INSERT INTO t VALUES ('" + text.replace(b"'", b"''") + b"');"])
COPY = st.lists(LINE.filter(lambda row: row != b"\\."), max_size=4).map(
    lambda rows: [b"COPY t (a) FROM stdin;", b"".join(row + b"\n" for row in rows) + b"\\.\n"]
)
DUMP = st.lists(st.one_of(STATEMENT, INSERT, COPY), min_size=1, max_size=5)


def written(parts: list[list[bytes]]) -> tuple[bytes, list[bytes], list[int]]:
    """A dump of these statements, what must be isolated of it, and where each ends, without its line's end."""
    dump, statements, ends = b"", [], []
    for statement in (each for part in parts for each in part):
        dump += statement
        statements.append(statement.rstrip(b"\n"))
        ends.append(len(dump.rstrip(b"\n")))
        dump += b"" if dump.endswith(b"\n") else b"\n"
    return dump, statements, ends


@given(DUMP)
def test_what_was_written_is_isolated(parts: list[list[bytes]]) -> None:
    dump, statements, _ = written(parts)

    found, is_whole = isolated(dump)

    assert ([each.rstrip(b"\n") for each in found], is_whole) == (statements, True)


@given(DUMP, st.data())
def test_a_cut_dump_isolates_the_same_until_the_cut(parts: list[list[bytes]], data: st.DataObject) -> None:
    """And says that its end is missing, unless it was cut between two statements."""
    dump, statements, ends = written(parts)
    cut = data.draw(st.integers(0, len(dump)))

    found, is_whole = isolated(dump[:cut])

    assert [each.rstrip(b"\n") for each in found] == statements[: len(found)]
    behind = dump[ends[len(found) - 1] if found else 0 : cut]
    lacks_rows = bool(found) and found[-1].startswith(b"COPY")
    assert is_whole == (not behind.strip(b"\n") and not lacks_rows)


SOUP = st.lists(
    st.sampled_from(
        ["'", '"', "$$", "$t$", "--", "/*", "*/", ";", "(", ")", "\n", " ", "a", "9", "E'", "''", "-", "/"]
    ),
    max_size=30,
).map("".join)


def slowly(text: str) -> Iterator[str]:
    """The obvious model: one character after the other."""
    statement, end, depth, parentheses, place = "", "", 0, 0, 0
    while place < len(text):
        rest = text[place:]
        took = rest[0]
        previous = text[place - 1] if place else " "
        if depth:
            took = rest[:2] if rest[:2] in {"/*", "*/"} else rest[0]
            depth += {"/*": 1, "*/": -1}.get(took, 0)
        elif end:
            took = end if rest.startswith(end) else rest[0]
            end = "" if took == end else end
        elif rest.startswith("--"):
            took = rest.split("\n", 1)[0]
        elif rest.startswith("/*"):
            took, depth = "/*", 1
        elif rest[0] in "'\"":
            end = rest[0]
        elif rest[0] == "$" and not (previous.isalnum() or previous in "_$"):
            took = next((tag for tag in ("$$", "$t$") if rest.startswith(tag)), "$")
            end = took if len(took) > 1 else ""
        parentheses = max(0, parentheses + {"(": 1, ")": -1}.get(took, 0) * (not end and not depth))
        is_comment = took.startswith(("--", "/*")) or depth > 0 or took == "*/"
        if statement or not (took.isspace() or is_comment):
            statement += took
        place += len(took)
        if took == ";" and not (end or depth or parentheses):
            yield statement
            statement = ""


@given(SOUP)
@example("a;$$;")
def test_any_mixture_is_read_as_the_obvious_model_reads_it(text: str) -> None:
    assert isolated(text.encode())[0] == [each.encode() for each in slowly(text)]
