"""Objects that a restore leaves out: without data, and in need of rights, roles or servers of their own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import psycopg

from tasks.backups.dumps.archive_toc import ArchiveToc, TocEntry

# As a table of contents names them.
DEFAULT_KINDS = (
    "PUBLICATION",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "SUBSCRIPTION",
    "SUBSCRIPTION TABLE",
    "EVENT TRIGGER",
    "POLICY",
    "ROW SECURITY",
    "SECURITY LABEL",
    "FOREIGN DATA WRAPPER",
    "SERVER",
    "USER MAPPING",
    "FOREIGN TABLE",
)
EXTENSION = "EXTENSION"
MAX_NAMES = 20  # in a detail
_NOISE = {"OR", "REPLACE", "IF", "NOT", "EXISTS", "ONLY", "UNIQUE", "RECURSIVE"}


@dataclass(frozen=True, slots=True)
class ExtensionCatalog:
    """What the scratch server can do about extensions, for the login that restores."""

    available: frozenset[str]
    superuser_only: frozenset[str]  # available, but this login cannot create them

    def lacks(self, name: str) -> bool:
        """Return whether this login cannot create the extension."""
        return name not in self.available or name in self.superuser_only


@dataclass(slots=True)
class LeftOutRules:
    """Decides what is left out, and keeps what was."""

    patterns: Sequence[str] = ()  # of the profile: "kind" or "kind schema.name"
    extensions: ExtensionCatalog | None = None  # None: none is left out
    found: list[str] = field(default_factory=list)  # what was left out, such as "PUBLICATION all_orders"

    def covers_entry(self, entry: TocEntry) -> bool:
        """Return whether an archive's object is left out, and note it; a comment goes with its object."""
        kind, name = entry.kind, entry.name.partition("(")[0]
        if kind == "COMMENT":
            kind, name = _kind_of(entry.name.split(" "), self._kinds())
            if kind == EXTENSION:
                return True  # its owner alone may comment on it, and a template's extensions have another one
        if not kind or not self._matches(kind, f"{entry.schema}.{name}" if entry.schema else name):
            return False
        if entry.kind != "COMMENT":
            self.found.append(f"{kind} {name}")
        return True

    def covers_statement(self, words: tuple[str, ...]) -> bool:
        """Return whether a statement of a plain dump is left out, by its words, and note it."""
        if words[-3:] == ("ROW", "LEVEL", "SECURITY") or words[:2] == ("SECURITY", "LABEL"):
            return True
        is_comment = words[:2] == ("COMMENT", "ON")
        if is_comment and words[2:3] == (EXTENSION,):
            return True  # as above
        if not is_comment and words[:1] not in {("CREATE",), ("ALTER",)}:
            return False
        rest = words[2:] if is_comment else words[1:]
        kind, name = _kind_of([word for word in rest if word not in _NOISE], self._kinds())
        if not kind or not self._matches(kind, name):
            return False
        if words[0] == "CREATE":
            self.found.append(f"{kind} {name.partition('.')[0]}")
        return True

    def describe(self) -> str:
        """Return what was left out, for a check's detail; empty: nothing."""
        more = f" and {len(self.found) - MAX_NAMES} more" if len(self.found) > MAX_NAMES else ""
        return ", ".join(self.found[:MAX_NAMES]) + more

    def _kinds(self) -> list[str]:
        own = {pattern.upper().rpartition(" ")[0] or pattern.upper() for pattern in self.patterns}
        whole = {pattern.upper() for pattern in self.patterns}
        return sorted({*DEFAULT_KINDS, EXTENSION, *own, *whole}, key=len, reverse=True)

    def _matches(self, kind: str, name: str) -> bool:
        if kind in DEFAULT_KINDS:
            return True
        if kind == EXTENSION and self.extensions is not None and self.extensions.lacks(name.partition(".")[0]):
            return True
        wanted = f"{kind} {name}".lower()
        patterns = [pattern.lower() for pattern in self.patterns]
        return any(kind.lower() == each or wanted == each or wanted.startswith(f"{each}.") for each in patterns)


def kept_entries(toc: ArchiveToc, rules: LeftOutRules) -> str:
    """Return the list for ``pg_restore --use-list``: the ids of all objects that are restored."""
    return "".join(f"{entry.id};\n" for entry in toc.entries if not rules.covers_entry(entry))


def read_extensions(connection: psycopg.Connection) -> ExtensionCatalog:
    """Ask the scratch database; an extension that its template brought along counts as available."""
    rows = connection.execute(
        "SELECT a.name, v.superuser AND NOT v.trusted AND e.oid IS NULL AND current_setting('is_superuser') <> 'on'"
        " FROM pg_available_extensions a"
        " JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version"
        " LEFT JOIN pg_extension e ON e.extname = a.name"
    ).fetchall()
    return ExtensionCatalog(
        available=frozenset(str(name) for name, _ in rows),
        superuser_only=frozenset(str(name) for name, is_refused in rows if is_refused),
    )


def _kind_of(words: Sequence[str], kinds: Iterable[str]) -> tuple[str, str]:
    """Return the kind that the words begin with, the longest first, and the name after it; ("", ""): none."""
    text = " ".join(words).upper()
    for kind in kinds:
        if text == kind or text.startswith(f"{kind} "):
            rest = words[len(kind.split(" ")) :]
            return kind, ".".join(word.strip('"') if word.startswith('"') else word.lower() for word in rest)
    return "", ""
