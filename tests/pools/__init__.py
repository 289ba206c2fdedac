"""Tests of the asyncio pool and of `async def` handlers in every pool."""
