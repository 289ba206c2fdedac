"""The examples in README and docs run as they are printed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID

import pytest
from sqlmodel import Session

from taskyard.database.engine import open_engine
from taskyard.flows.queries import find_flow
from taskyard.migrations.owners import table_owners
from taskyard.migrations.schema import upgrade
from taskyard.settings.loading import load_settings, setting_prefixes
from taskyard.webhooks.delivery.endpoints import register
from taskyard.webhooks.signing.key_vault import new_master_key
from tests.databases import Database
from tests.servers import Server
from tests.waiting import wait_for
from tests.webhooks.receivers import Receiver
from tests.workers import MINIMAL, Worker

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LIMIT = 60  # seconds
PAGES = [path.name for path in (ROOT / "docs").glob("*.md") if BLOCK.search(path.read_text())]


@pytest.fixture
def environment(valkey: Server, tmp_path: Path) -> dict[str, str]:
    """Settings of a deployment that has nothing but its tables."""
    url = f"sqlite:///{tmp_path / 'example.db'}"
    engine = open_engine(url)
    upgrade(engine, table_owners(()))
    engine.dispose()
    rest = {name: value for name, value in os.environ.items() if not name.startswith(setting_prefixes())}
    ours = {"WEBHOOK_ALLOW_HTTP": "true", "WEBHOOK_ALLOW_NETS": "127.0.0.0/8"}
    key = new_master_key("test").reveal()
    return rest | ours | {"DATABASE_URL": url, "REDIS_URL": valkey.url, "WEBHOOK_SECRET_KEYS": key}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page: str, environment: Mapping[str, str], tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text("\n".join(BLOCK.findall((ROOT / "docs" / page).read_text())))
    _run(script, environment)


def test_the_app_of_the_readme_sends_its_webhook(
    environment: Mapping[str, str], receiver: Receiver, tmp_path: Path
) -> None:
    shop, _ = BLOCK.findall((ROOT / "README.md").read_text())
    (tmp_path / "shop.py").write_text(shop)
    settings = load_settings(environment)
    engine = open_engine(environment["DATABASE_URL"])
    with Database("sqlite", environment["DATABASE_URL"], engine).session() as session, session.begin():
        register(session, settings, receiver.url, ["market.*"])
    engine.dispose()
    path = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    with Worker("shop", tmp_path, arguments=MINIMAL, env={**environment, **path}) as worker:
        _run(tmp_path / "shop.py", environment)
        (request,) = receiver.wait_for(1, timeout=LIMIT)
        assert b'"data":{"market_id":"mkt-1"}' in request.body, worker.tail()


def test_the_flow_of_the_readme_is_undone_and_resumed(environment: Mapping[str, str], tmp_path: Path) -> None:
    _, orders = BLOCK.findall((ROOT / "README.md").read_text())
    (tmp_path / "orders.py").write_text(orders)
    env = {**environment, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}  # the worker runs in the first one
    flows = (sys.executable, "-m", "celery", "-A", "orders", "flows")
    with Worker("orders", tmp_path, arguments=MINIMAL, env=env) as worker:
        flow_id = _run(tmp_path / "orders.py", env).strip()
        _wait_flow(env, flow_id, "compensated", worker)
        (tmp_path / "courier.key").touch()
        _run_words((*flows, "resume", flow_id), env, tmp_path)
        _wait_flow(env, flow_id, "succeeded", worker)
    assert "+ ship" in _run_words((*flows, "show", flow_id), env, tmp_path)


def _wait_flow(environment: Mapping[str, str], flow_id: str, state: str, worker: Worker) -> None:
    engine = open_engine(environment["DATABASE_URL"])

    def reached() -> bool:
        with Session(engine) as session:
            flow = find_flow(session, UUID(flow_id))
            return flow is not None and flow.state == state

    wait_for(reached, LIMIT, f"the flow is {state}", worker.tail)
    engine.dispose()


def _run(script: Path, environment: Mapping[str, str]) -> str:
    return _run_words((sys.executable, str(script)), environment, script.parent)


def _run_words(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
    ended = subprocess.run(
        words,
        env=dict(environment),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
