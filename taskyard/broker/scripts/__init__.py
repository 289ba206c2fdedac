"""The Lua scripts that decide what happens to a message, and what runs them."""
