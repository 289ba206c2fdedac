"""Ids of runs on the command line may be shortened to a prefix that only one run has."""

import click
from sqlmodel import Session, col, select

from taskyard.history.models import Run


def full_run_id(session: Session, given: str) -> str:
    """
    Return the id of the run that begins with a text; what fits no run is returned as it is.

    Raises:
        click.UsageError: Several runs begin so.
    """
    if session.get(Run, given) is not None:
        return given
    query = select(Run.id).where(col(Run.id).startswith(given, autoescape=True)).order_by(col(Run.id)).limit(3)
    found = session.exec(query).all()
    if len(found) > 1:
        raise click.UsageError(f"several runs begin with {given!r}: {', '.join(found)}; give more characters")
    return found[0] if found else given
