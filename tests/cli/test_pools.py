"""The pool that is asked for is the pool that runs; without an option it is the configured one."""

import json
import subprocess
import sys

from tests.workers import ROOT

WORDS = {
    "": "thread",
    "-P prefork": "prefork",
    "--pool=prefork": "prefork",
    "-P processes": "prefork",
    "-P threads": "thread",
    "-P solo": "solo",
}
ASK = """
import json, sys
from celery.bin.celery import celery
from celery.bin.base import CLIContext
from tasks.app import app

def pool(words):
    obj = CLIContext(app=app, no_color=True, workdir=None)
    with celery.commands["worker"].make_context("worker", words.split(), obj=obj) as context:
        return context.params["pool"].__module__

print(json.dumps({words: pool(words) for words in json.loads(sys.argv[1])}))
"""


def test_a_pool_is_taken_at_its_word() -> None:
    """As the `celery` command reads its line, in a process of its own: it loads our commands when it is imported."""
    command = [sys.executable, "-c", ASK, json.dumps(list(WORDS))]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)

    assert json.loads(done.stdout) == {words: f"celery.concurrency.{name}" for words, name in WORDS.items()}
