"""Databases as they are in production restore with a login that may only create databases."""

import shutil

import pytest

from tests.backups.backup_target import SHOP_PROFILE, BackupTarget
from tests.backups.shop_server import ShopServer

PRODUCTION = (
    "CREATE EXTENSION pg_stat_statements",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION postgres_fdw",
    "CREATE EXTENSION hstore",  # trusted: it is restored
    "ALTER TABLE customers ADD tags hstore",
    "CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'db.example', dbname 'x')",
    "CREATE USER MAPPING FOR CURRENT_USER SERVER elsewhere OPTIONS (user 'u', password 'p')",
    "CREATE FOREIGN TABLE remote (id int) SERVER elsewhere",
    "CREATE PUBLICATION everything FOR ALL TABLES",
    "CREATE PUBLICATION orders_only FOR TABLE orders",
    "CREATE FUNCTION note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''ddl''; END'",
    "CREATE EVENT TRIGGER notes ON ddl_command_end EXECUTE FUNCTION note_ddl()",
    "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE orders FORCE ROW LEVEL SECURITY",
    "CREATE POLICY own ON orders TO clerk USING (cents > 5)",
    "COMMENT ON POLICY own ON orders IS 'clerks see what is dear'",
    "COMMENT ON PUBLICATION orders_only IS 'for the warehouse'",
    "ALTER TABLE orders SET TABLESPACE fast",
)


@pytest.fixture
def production(shop_server: ShopServer) -> ShopServer:
    """The server with a role and a tablespace that no scratch server has."""
    if not shop_server.query("SELECT 1 FROM pg_roles WHERE rolname = 'clerk'"):
        shop_server.query("CREATE ROLE clerk")
        place = shop_server.socket_folder / "fast"
        place.mkdir()
        shutil.chown(place, shop_server.socket_folder.owner())
        shop_server.query(f"CREATE TABLESPACE fast LOCATION '{place}'")
    return shop_server


@pytest.mark.parametrize("kind", ["custom", "directory", "tar", "plain"])
def test_what_needs_a_superuser_or_a_foreign_role_is_left_out_and_listed(
    backup_target: BackupTarget, production: ShopServer, kind: str
) -> None:
    with production.changed_shop(*PRODUCTION) as database:
        production.dump(backup_target.dumps / "shop.dump", database, kind)
    production.query("DROP TABLESPACE fast")
    production.query("DROP ROLE clerk")
    shutil.rmtree(production.socket_folder / "fast")
    backup_target.add_manifest()
    result = backup_target.verify()
    assert (result.state, result.reason) == ("passed", None)
    checks = {check["name"]: check["detail"] for check in backup_target.run(result.run_id).checks}
    for what in ("EXTENSION dblink", "PUBLICATION everything", "EVENT TRIGGER notes", "POLICY", "SERVER elsewhere"):
        assert what in checks["left out"]
    assert "hstore" not in checks["left out"]
    assert checks["rows public.orders"] == "2000"


@pytest.mark.parametrize("kind", ["custom", "plain"])
def test_a_profile_leaves_out_more(backup_target: BackupTarget, shop_server: ShopServer, kind: str) -> None:
    broken = "CREATE VIEW public.reports AS SELECT * FROM dblink('x', 'SELECT 1') AS t(n int)"
    with shop_server.changed_shop("CREATE EXTENSION dblink", broken) as database:
        shop_server.dump(backup_target.dumps / "shop.dump", database, kind)
    backup_target.add_manifest()
    backup_target.write_profile(SHOP_PROFILE, leave_out='["view public.reports"]')
    assert backup_target.verify().state == "passed"


def test_a_scratch_database_is_copied_from_a_template_that_has_what_needs_a_superuser(
    backup_target: BackupTarget, shop_server: ShopServer
) -> None:
    view = "CREATE VIEW public.reports AS SELECT * FROM dblink('x', 'SELECT 1') AS t(n int)"
    with shop_server.changed_shop("CREATE EXTENSION dblink", view) as database:
        shop_server.dump(backup_target.dumps / "shop.dump", database)
    backup_target.add_manifest()
    shop_server.query("CREATE DATABASE prepared TEMPLATE template0")
    shop_server.query("CREATE EXTENSION dblink", "prepared")
    shop_server.query("ALTER DATABASE prepared IS_TEMPLATE true")
    try:
        backup_target.write_profile(SHOP_PROFILE, template='"prepared"')
        assert backup_target.verify().state == "passed"
    finally:
        shop_server.query("ALTER DATABASE prepared IS_TEMPLATE false")
        shop_server.query("DROP DATABASE prepared")


def test_text_that_looks_like_commands_is_restored_as_it_is(
    backup_target: BackupTarget, shop_server: ShopServer
) -> None:
    """A function's body and a value with lines that begin like statements of their own."""
    body = "\nCREATE DATABASE x;\nGRANT ALL ON orders TO nobody;\nALTER TABLE a OWNER TO b;\n\\connect other\n"
    changes = (  # our own text
        f"CREATE FUNCTION deploy() RETURNS text LANGUAGE sql AS $$SELECT $t${body}$t$::text$$",
        f"UPDATE orders SET note = $${body}$$ WHERE id = 1",  # noqa: S608 - our own text
        "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT n; SELECT n * 2; END",
        f"COMMENT ON TABLE orders IS $${body}$$",
    )
    escaped = body.replace("\\", "\\\\")
    question = f"SELECT deploy() = E'{escaped}' AND deploy() = (SELECT note FROM orders WHERE id = 1)"  # noqa: S608 - ours
    toml = question.replace("\\", "\\\\").replace("\n", "\\n")
    for options in ([], ["--inserts"]):
        with shop_server.changed_shop(*changes) as database:
            shop_server.dump(backup_target.dumps / "shop.sql", database, "plain", *options)
        backup_target.add_manifest()
        backup_target.write_profile(SHOP_PROFILE + f'\n[[assertions]]\nname = "as written"\nsql = "{toml}"\n')
        result = backup_target.verify()
        assert (result.state, result.reason) == ("passed", None)


def test_the_scratch_database_goes_although_autovacuum_works_in_it(
    backup_target: BackupTarget, shop_server: ShopServer
) -> None:
    """With CREATEDB only, DROP DATABASE ... WITH (FORCE) may not end a worker of autovacuum."""
    settings = {
        "autovacuum_naptime": "1s",
        "autovacuum_vacuum_cost_delay": "100ms",
        "autovacuum_vacuum_cost_limit": "1",
    }
    grow = "INSERT INTO orders SELECT n, 1, n, repeat(md5(n::text), 4) FROM generate_series(3000, 400000) n"
    for name, value in settings.items():
        shop_server.query(f"ALTER SYSTEM SET {name} = '{value}'")
    shop_server.query("SELECT pg_reload_conf()")
    try:
        with shop_server.changed_shop(grow) as database:
            shop_server.dump(backup_target.dumps / "shop.dump", database)
        backup_target.add_manifest()
        wait = "SELECT count(*) >= 0 FROM orders o, LATERAL (SELECT pg_sleep(8) WHERE o.id = 1) nap"
        backup_target.write_profile(
            SHOP_PROFILE + f'\n[[assertions]]\nname = "time for autovacuum"\nsql = "{wait}"\n', query_timeout='"60s"'
        )
        assert backup_target.verify().state == "passed"
        assert shop_server.scratch_databases() == []
    finally:
        for name in settings:
            shop_server.query(f"ALTER SYSTEM RESET {name}")
        shop_server.query("SELECT pg_reload_conf()")
