"""The pool for `async def` handlers, and what lets them run in every other pool."""
