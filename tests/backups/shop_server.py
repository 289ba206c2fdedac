"""A PostgreSQL server that asks for passwords, with a small shop to dump and a login that may only make databases."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from tests.databases import Postgres

PASSWORD = "s3cr:et\\pa ss'%/@"  # each character that a URL, a passfile or a shell could trip over
CUSTOMERS = 1000
ORDERS = 2000
_SHOP = """
CREATE TABLE customers (
  id int PRIMARY KEY, email text NOT NULL UNIQUE, created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE orders (
  id int PRIMARY KEY, customer_id int NOT NULL CONSTRAINT orders_customer_fk REFERENCES customers,
  cents bigint NOT NULL CONSTRAINT orders_cents_positive CHECK (cents > 0), note text
);
CREATE INDEX orders_by_customer ON orders (customer_id);
CREATE TABLE alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0007');
INSERT INTO customers SELECT n, 'c' || n || '@example.org' FROM generate_series(1, 1000) n;
INSERT INTO orders SELECT n, 1 + n % 1000, n, repeat(md5(n::text), 4) FROM generate_series(1, 2000) n;
GRANT SELECT ON orders TO PUBLIC;
"""
# Sleeps only where it is restored: a restore that takes long, from a dump that is made at once.
NAPS = """
CREATE FUNCTION nap(n int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN IF current_database() LIKE 'taskyard_scratch%' THEN PERFORM pg_sleep(60); END IF; RETURN true; END $$;
CREATE TABLE naps (n int CONSTRAINT naps_take_long CHECK (public.nap(n)));
INSERT INTO naps VALUES (1);
"""


class ShopServer(Postgres):
    """The server; `owner_url` is its administrator's, `url_of` that of a login with CREATEDB and no other right."""

    def start(self) -> "ShopServer":
        """Start it, make the login, and from then on ask everybody for a password."""
        super().start()
        with psycopg.connect(**self._login("postgres"), autocommit=True) as connection:
            for statement in ("ALTER ROLE taskyard PASSWORD {}", "CREATE ROLE verifier LOGIN CREATEDB PASSWORD {}"):
                connection.execute(sql.SQL(statement).format(sql.Literal(PASSWORD)))
            rules = "local all all scram-sha-256\nhost all all all scram-sha-256\n"
            (self._folder / "data" / "pg_hba.conf").write_text(rules)
            connection.execute("SELECT pg_reload_conf()")
        self.query("CREATE DATABASE shop")
        self.query("CREATE DATABASE entry")  # where BACKUP_EPHEMERAL_DB_URL leads; nothing is restored into it
        self.query(_SHOP, "shop")
        return self

    @property
    def socket_folder(self) -> Path:
        """Where its Unix socket lies."""
        return self._folder

    def url_of(self, database: str = "entry", password: str = PASSWORD, **parts: Any) -> str:
        """The verifier's URL."""
        place = {"host": "127.0.0.1", "port": self.port, **parts}
        url = URL.create("postgresql", username="verifier", password=password, database=database, **place)
        return url.render_as_string(hide_password=False).replace(" ", "%20")  # SQLAlchemy leaves spaces as they are

    def query(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the administrator; return its rows."""
        with psycopg.connect(**self._login(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def scratch_databases(self) -> list[str]:
        """The scratch databases that are there."""
        return [name for (name,) in self.query("SELECT datname FROM pg_database WHERE datname LIKE 'taskyard%'")]

    @contextmanager
    def changed_shop(self, *statements: str) -> Iterator[str]:
        """A copy of the shop after these statements; its name."""
        name = f"shop_{uuid4().hex[:8]}"
        self.query(f"CREATE DATABASE {name} TEMPLATE shop")
        try:
            for statement in statements:
                self.query(statement, name)
            yield name
        finally:
            self.query(f"DROP DATABASE {name} WITH (FORCE)")

    def dump(self, path: Path, database: str = "shop", kind: str = "custom", *options: str) -> Path:
        """Make a real dump."""
        command = [str(self.binaries / "pg_dump"), f"--format={kind}", f"--file={path}", *options, database]
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "taskyard", "PGPASSWORD": PASSWORD}
        subprocess.run(command, env={**os.environ, **where}, check=True, capture_output=True)
        return path

    def dump_all(self, path: Path) -> Path:
        """Dump all databases, as pg_dumpall does."""
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "taskyard", "PGPASSWORD": PASSWORD}
        command = [str(self.binaries / "pg_dumpall"), f"--file={path}"]
        subprocess.run(command, env={**os.environ, **where}, check=True, capture_output=True)
        return path

    def set_customers_time(self, database: str, moment: datetime) -> None:
        """Give all customers one time."""
        self.query(f"UPDATE customers SET created_at = '{moment.isoformat()}'", database)  # noqa: S608 - our own text

    def _login(self, database: str) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "taskyard",
            "password": PASSWORD,
            "dbname": database,
            "application_name": "administrator",
        }
