"""Projects of somebody's own, whose processes are started with Celery's options."""

from tests.identity.conftest import make_project

__all__ = ["make_project"]
