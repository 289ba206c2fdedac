"""The platform's app with a coroutine under Celery's own decorator."""

from tasks.app import app

__all__ = ["app"]  # `celery -A` looks for the app here


@app.task(name="plain.waits")
async def waits() -> None:
    """Is never awaited."""
