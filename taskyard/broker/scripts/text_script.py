"""Scripts in the form of redis-py that need no SCRIPT command: managed servers may refuse it."""

from collections.abc import Iterable, Sequence
from typing import Any

import redis
from redis.client import Pipeline
from redis.commands.core import Script


class TextScript(Script):
    """As what `register_script` returns, but a script that the server does not know is sent as text."""

    def __call__(self, keys: Sequence[Any] | None = None, args: Iterable[Any] | None = None, client: Any = None) -> Any:
        """
        Run it, with `client` or the one that it was made with; in a pipeline its text is always sent.

        Raises:
            redis.RedisError: As the client does.
        """
        names = list(keys or ())
        text: Any = self.script
        words = (len(names), *names, *(args or ()))
        runner: Any = self.registered_client if client is None else client
        if isinstance(runner, Pipeline):
            return runner.eval(text, *words)
        try:
            return runner.evalsha(self.sha, *words)
        except redis.exceptions.NoScriptError:
            return runner.eval(text, *words)
