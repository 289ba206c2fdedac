"""The Lua scripts that move messages, and their runner."""
