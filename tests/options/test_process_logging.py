"""A worker logs as its project has configured, and what handlers log is kept with the run whatever that is."""

import sqlite3

import pytest

from tests.identity.conftest import MakeProject
from tests.identity.project import Project
from tests.waiting import wait_for

LIMIT = 60  # seconds
pytestmark = pytest.mark.timeout(240)
CONFIG = """
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "THEIRS %(name)s %(message)s"}},
    "handlers": {
        "file": {"class": "logging.FileHandler", "filename": "theirs.log", "formatter": "plain"},
        "console": {"class": "logging.StreamHandler", "formatter": "plain"},
    },
    "root": {"handlers": ["file", "console"], "level": "INFO"},
    "loggers": {"shop": {"handlers": ["file"], "level": "INFO", "propagate": False}},
}
"""
RECEIVER = """
from logging.config import dictConfig

from celery.signals import setup_logging


@setup_logging.connect
def configure(**given):
    dictConfig(LOGGING)
"""
AT_IMPORT = """
from logging.config import dictConfig

dictConfig(LOGGING)
"""
DURING_A_TASK = """
from celery.signals import task_prerun


@task_prerun.connect
def configure(**given):
    logging.basicConfig(filename="theirs.log", format="THEIRS %(name)s %(message)s", level="INFO", force=True)
"""


def kept_lines(project: Project) -> str:
    with sqlite3.connect(project.database) as connection:
        return "".join(row[0] for row in connection.execute("SELECT lines FROM taskyard_task_logs"))


@pytest.mark.parametrize(
    "more",
    [CONFIG + RECEIVER, CONFIG + AT_IMPORT, DURING_A_TASK],
    ids=["a receiver of setup_logging", "dictConfig at import", "whoever comes later"],
)
def test_the_logging_of_a_project_is_kept(make_project: MakeProject, more: str) -> None:
    shop = make_project("shop", more)
    worker = shop.worker(LOG_LEVEL="error")  # the option `-l INFO` wins
    shop.sends("hello")
    theirs = shop.folder / "theirs.log"
    wait_for(lambda: "said hello" in kept_lines(shop), LIMIT, "the line is kept with its run", worker.tail)
    assert "THEIRS shop said hello" in theirs.read_text()
    assert worker.log.read_text().count("said hello") <= 1


def test_the_logging_of_django_is_kept(make_project: MakeProject) -> None:
    shop = make_project("shop")
    (shop.folder / "site_settings.py").write_text(CONFIG + 'SECRET_KEY = "x"\n')
    worker = shop.worker(DJANGO_SETTINGS_MODULE="site_settings")
    shop.sends("hello")
    wait_for(lambda: "said hello" in kept_lines(shop), LIMIT, "the line is kept with its run", worker.tail)
    assert "THEIRS shop said hello" in (shop.folder / "theirs.log").read_text()
    assert "THEIRS celery.apps.worker worker@test ready." in worker.log.read_text()


def test_a_handler_that_is_added_by_a_signal_stays(make_project: MakeProject) -> None:
    """As error trackers do it; our own handler prints beside it."""
    more = (
        "from celery.signals import after_setup_logger\n\n\n@after_setup_logger.connect\n"
        "def add(logger, **given):\n    logger.addHandler(logging.FileHandler('theirs.log'))\n"
    )
    shop = make_project("shop", more)
    worker = shop.worker()
    shop.sends("hello")
    wait_for(lambda: "said hello" in worker.log.read_text(), LIMIT, "it is printed", worker.tail)
    assert '"event": "said hello by' in worker.log.read_text()
    assert "said hello" in (shop.folder / "theirs.log").read_text()
