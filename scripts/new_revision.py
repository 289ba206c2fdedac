"""Write an Alembic revision from the models: `.venv/bin/python -m scripts.new_revision OWNER "what it does"`."""

import sys
import tempfile
from pathlib import Path

from alembic import command
from sqlalchemy import create_engine

from tasks.app import DOMAINS
from taskyard.migrations.owners import table_owners
from taskyard.migrations.schema import configuration, upgrade


def main(owner_name: str, message: str) -> None:
    """Compare the models of one owner with its revisions so far, on an empty SQLite database, and write what is new."""
    owners = {owner.name: owner for owner in table_owners(DOMAINS)}
    if owner_name not in owners:
        raise SystemExit(f"no owner {owner_name!r}; known: {', '.join(owners)}")
    owner = owners[owner_name]
    owner.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{Path(folder) / 'empty.db'}")
        if any(owner.folder.glob("*.py")):
            upgrade(engine, [owner])
        number = f"{len(list(owner.folder.glob('[0-9]*.py'))) + 1:04}"
        with engine.connect() as connection:
            command.revision(configuration(owner, connection), message, autogenerate=True, rev_id=number)


if __name__ == "__main__":
    main(*sys.argv[1:])
