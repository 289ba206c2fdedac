"""The scheduler's engine: lead, plan, fire, publish."""
