"""A domain that is made as CONTRIBUTING.md says: one folder, and one line in the list of the app."""

from pathlib import Path

FILES = {
    "shop/__init__.py": '"""An app of somebody else."""\n',
    "shop/app.py": """
from shop.parcels.domain import PARCELS
from taskyard import Taskyard

app = Taskyard("shop", domains=(PARCELS,))
""",
    "shop/parcels/__init__.py": "",
    "shop/parcels/domain.py": """
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from taskyard import CommandGroup, Domain, Queue, Tables
from taskyard.settings import SettingsGroup

QUEUE = Queue("parcels", profile="io")


class ParcelSettings(SettingsGroup):
    prefixes: ClassVar[tuple[str, ...]] = ("PARCEL_",)

    parcel_seconds: int = Field(1, ge=1, description="How often parcels are counted")


PARCELS = Domain(
    "parcels",
    tasks=("shop.parcels.tasks",),
    queues=(QUEUE,),
    settings=ParcelSettings,
    timetable="shop.parcels.timetable:entries",
    gauges="shop.parcels.metrics:figures",
    checks="shop.parcels.metrics:findings",
    commands=(CommandGroup("parcels", "shop.parcels.cli", "Parcels: list."),),
    tables=Tables("shop.parcels.models", Path(__file__).parent / "migrations"),
)
""",
    "shop/parcels/models.py": '''
from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

METADATA = MetaData()


class ParcelTable(SQLModel, registry=registry(metadata=METADATA)):
    """Base of the tables of this domain."""


class Parcel(ParcelTable, table=True):
    __tablename__ = "parcels"

    id: int | None = Field(default=None, primary_key=True)
    label: str
''',
    "shop/parcels/migrations/0001_first_tables.py": """
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    number = sa.Column("id", sa.Integer, primary_key=True)
    op.create_table("parcels", number, sa.Column("label", sa.String(), nullable=False))
""",
    "shop/parcels/tasks.py": """
from shop.parcels.domain import QUEUE
from shop.parcels.models import Parcel
from taskyard import Payload, task
from taskyard.database.engine import open_session


class Pack(Payload):
    label: str


@task("parcels.pack", Pack, queue=QUEUE)
def pack(payload: Pack) -> None:
    with open_session() as session, session.begin():
        session.add(Parcel(label=payload.label))
""",
    "shop/parcels/timetable.py": """
from datetime import timedelta

from shop.parcels.domain import ParcelSettings
from shop.parcels.tasks import Pack, pack
from taskyard.beat import Entry, every
from taskyard.settings import current_settings


def entries():
    seconds = current_settings(ParcelSettings).parcel_seconds
    yield Entry("parcels.regular", pack, Pack(label="by schedule"), every(timedelta(seconds=seconds)))
""",
    "shop/parcels/metrics.py": """
from sqlmodel import func, select

from shop.parcels.models import Parcel
from taskyard.gauges import GaugeSample
from taskyard.findings import Finding


def figures(session):
    yield GaugeSample("shop_parcels", "Parcels", float(session.exec(select(func.count(Parcel.id))).one()))


def findings():
    yield Finding("parcels", "ok", "there is tape")
""",
    "shop/parcels/cli.py": '''
import click
from sqlmodel import select

from shop.parcels.models import Parcel
from taskyard.database.engine import open_session


@click.group("parcels")
def group() -> None:
    """Parcels: list."""


@group.command("ls")
def ls() -> None:
    """List the labels of all parcels."""
    with open_session() as session:
        for parcel in session.exec(select(Parcel).order_by(Parcel.id)):
            click.echo(parcel.label)
''',
}


def write_toy(folder: Path) -> None:
    """Write the app and its domain into a folder."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"))
