"""The address of a PostgreSQL server, parsed so that its password is never in an argument."""

from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from tasks.backups.errors import BackupConfigError, InfrastructureError

CONNECT_LIMIT = 10  # seconds
# A holder that vanished with its host is noticed within a minute, not within hours.
KEEPALIVES = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
# Messages of faults that no retry heals; the protocol gives no code before authentication.
_FINAL_FAULTS = ("password authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a database is and how to log in; its repr omits the password."""

    setting: str  # the variable it came from, for messages
    parts: dict[str, str] = field(repr=False)  # libpq's keywords

    @property
    def database(self) -> str:
        """The database's name; libpq's default is the user's."""
        return self.parts.get("dbname") or self.parts.get("user", "")

    @property
    def shown(self) -> str:
        """Host, port and database, for messages."""
        return f"{self.parts.get('host', 'local')}:{self.parts.get('port', '5432')}/{self.database}"

    def connect(self, database: str | None = None, *, program: str = "taskyard backups") -> psycopg.Connection:
        """
        Open a connection in autocommit mode, to another database of the server if one is named.

        Raises:
            BackupConfigError: The server refuses this user, password or database.
            InfrastructureError: It cannot be reached.
        """
        parts: dict[str, str | int] = {**self.parts, "application_name": program, "connect_timeout": CONNECT_LIMIT}
        parts["options"] = f"{self.parts.get('options', '')} {KEEPALIVES}".strip()
        if database is not None:
            parts["dbname"] = database
        try:
            return psycopg.connect("", autocommit=True, **parts)  # type: ignore[arg-type]  # any libpq keyword is taken
        except psycopg.OperationalError as error:
            text = f"{self.setting}: {_last_line(error)}"
            if any(fault in text for fault in _FINAL_FAULTS):
                raise BackupConfigError(text) from None
            raise InfrastructureError(text) from None

    def environment(self, database: str, passfile: Path) -> dict[str, str]:
        """
        Return the variables with which PostgreSQL's programs reach a database of this server.

        The password is written to ``passfile`` (mode 0600), never into the environment or an argument.
        """
        names = {option.keyword.decode(): option.envvar for option in pq.Conninfo.get_defaults() if option.envvar}
        parts = {key: value for key, value in self.parts.items() if key not in {"password", "passfile"}}
        parts["dbname"] = database
        env = {envvar.decode(): parts[key] for key, envvar in names.items() if key in parts}
        if "password" in self.parts:
            passfile.touch(mode=0o600)
            passfile.write_text(f"*:*:*:*:{_escaped(self.parts['password'])}\n", encoding="utf-8")
            env["PGPASSFILE"] = str(passfile)
        elif "passfile" in self.parts:
            env["PGPASSFILE"] = self.parts["passfile"]
        return env | {"PGCONNECT_TIMEOUT": str(CONNECT_LIMIT)}


def parse_address(url: str, setting: str) -> ServerAddress:
    """
    Read ``postgresql://user:password@host:port/database?options``; SQLAlchemy's ``postgresql+psycopg`` is taken too.

    Raises:
        BackupConfigError: It is not such a URL. The message does not show it, for it may hold a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise BackupConfigError(f"{setting}: not a PostgreSQL URL (postgresql://user:password@host:5432/database)")
    try:
        parts = conninfo_to_dict(f"postgresql://{rest.replace(' ', '%20')}")  # SQLAlchemy leaves spaces as they are
    except psycopg.ProgrammingError:
        raise BackupConfigError(f"{setting}: malformed PostgreSQL URL") from None
    if not str(parts.get("port", "5432")).replace(",", "").isdigit():
        raise BackupConfigError(f"{setting}: the port is not a number")
    return ServerAddress(setting, {key: str(value) for key, value in parts.items()})


def _last_line(error: psycopg.Error) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _escaped(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")
