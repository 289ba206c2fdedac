"""The demo's settings: the same hours as in production, run a thousand times faster by settings alone."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from taskyard.settings.loading import setting_prefixes
from taskyard.settings.platform import Settings
from taskyard.webhooks.signing.key_vault import new_master_key

ATTEMPTS = 6  # five waits, as in production


def demo_settings(folder: Path, redis_url: str) -> dict[str, str]:
    """Return the variables of a demo that lives in ``folder``."""
    return {
        "REDIS_URL": redis_url,
        "DATABASE_URL": f"sqlite:///{folder / 'demo.db'}",
        "TASKYARD_DATA": str(folder),
        "LOG_FORMAT": "json",
        "WORKER_QUEUE_CONCURRENCY": "8",
        "WORKER_SHUTDOWN_SECONDS": "3",
        "WEBHOOK_SECRET_KEYS": new_master_key("demo").reveal(),
        # The receivers listen on this machine, without TLS.
        "WEBHOOK_ALLOW_HTTP": "true",
        "WEBHOOK_ALLOW_NETS": "127.0.0.0/8",
        # 30 s, 5 min, 1 h, 6 h, 24 h become seconds. Such waits stay in the broker; the sweeper looks as often as in
        # production, for what was lost: a shorter interval would count as lost what only waits on a slow machine.
        "WEBHOOK_RETRY_DELAYS": "0.2,0.4,0.8,1.6,3.2",
        "WEBHOOK_THROTTLE_FLOOR": "0.1",
        # One receiver is down for good: in production its endpoint would be paused, then disabled. Here every
        # delivery shall use all its attempts and end as a dead letter.
        "WEBHOOK_BREAKER_FAILURES": "10000",
        "WEBHOOK_DISABLE_EXHAUSTED": "10000",
    }


def take_over(variables: Mapping[str, str]) -> None:
    """Make these the only settings of this process and of those that it starts."""
    ours = {name.upper() for name in Settings.model_fields}
    for name in [
        name for name in os.environ if name in ours or name.startswith((*setting_prefixes(), "FLOWER_", "CELERY_"))
    ]:
        del os.environ[name]
    os.environ.update(variables)


def write_script(path: Path, variables: Mapping[str, str]) -> None:
    """Write the variables for a shell to read; only its owner may, for a master key is among them."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    path.touch(mode=0o600)
    path.write_text("\n".join([*lines, ""]))
