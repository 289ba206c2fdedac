"""Who owns tables: the library, and each domain of the app that has some. Each has revisions of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from sqlalchemy import MetaData

from taskyard.beat import models as beat_models
from taskyard.database import identity
from taskyard.database.tables import METADATA
from taskyard.domain import Domain
from taskyard.flows import models as flow_models
from taskyard.history import models as history_models
from taskyard.history import operator_log
from taskyard.tasks.current_app import current_app
from taskyard.webhooks import models as webhook_models

LIBRARY = "taskyard"
LIBRARY_MODELS = (
    beat_models,
    flow_models,
    history_models,
    identity,
    operator_log,
    webhook_models,
)  # their import declares the tables


@dataclass(frozen=True, slots=True)
class TableOwner:
    """A set of tables with its own chain of revisions."""

    name: str
    metadata: MetaData
    folder: Path  # of its revisions

    @property
    def version_table(self) -> str:
        """The table that says which revision the database has; an app's own Alembic never meets it."""
        return f"{self.name}_alembic_version" if self.name == LIBRARY else f"taskyard_{self.name}_alembic_version"


def table_owners(domains: Sequence[Domain] | None = None) -> list[TableOwner]:
    """
    Return the owners of tables: the library first, then domains in the order in which the app lists them.

    Args:
        domains: None takes those of this process's app.
    """
    owners = [TableOwner(LIBRARY, METADATA, Path(__file__).parent / "versions")]
    for domain in current_app().domains if domains is None else domains:
        if domain.tables is not None:
            metadata: MetaData = import_module(domain.tables.models).METADATA
            owners.append(TableOwner(domain.name, metadata, domain.tables.migrations))
    return owners
