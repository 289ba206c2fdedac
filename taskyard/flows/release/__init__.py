"""From rows to the broker: flows are started, released steps handed over."""
