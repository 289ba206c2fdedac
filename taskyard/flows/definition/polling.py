"""How a step looks again at what is not there yet, and spans of time in definitions."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from taskyard.flows.plan import FlowDefinitionError

LONGEST = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Poll:
    """How a step that asks for something looks again while its handler raises :class:`taskyard.flows.Pending`."""

    every: timedelta  # the first pause
    within: timedelta  # from the step's start; then it has failed
    growth: float = 1.0  # each pause is the one before times this
    longest: timedelta | None = None  # of a growing pause; None: as long as `every` x 10

    def __post_init__(self) -> None:
        given: tuple[Any, ...] = (self.every, self.within, self.longest or self.every)
        if not all(isinstance(span, timedelta) for span in given):
            raise FlowDefinitionError(f"Poll: every {self.every!r} within {self.within!r}: use timedeltas")
        if not timedelta(milliseconds=10) <= self.every <= self.within <= LONGEST:
            raise FlowDefinitionError(f"Poll: every {self.every} within {self.within} has no meaning")
        if not 1 <= self.growth <= 10:  # noqa: PLR2004 - a pause that shrinks, or explodes, is a slip
            raise FlowDefinitionError(f"Poll: growth {self.growth} is not between 1 and 10")

    def facts(self) -> dict[str, float]:
        """Return it in seconds, as it is stored."""
        longest = self.longest or self.every * 10
        seconds = {"every": self.every, "within": self.within, "longest": longest}
        return {**{name: span.total_seconds() for name, span in seconds.items()}, "growth": self.growth}


def seconds_of(what: str, span: timedelta | None) -> float | None:
    """
    Return a span in seconds; None stays None.

    Raises:
        FlowDefinitionError: It is no span of time that lies ahead.
    """
    if span is None:
        return None
    given: Any = span
    if not isinstance(given, timedelta) or not timedelta(0) < given <= LONGEST:
        raise FlowDefinitionError(f"{what} {str(span)[:40]}: use a timedelta of more than 0 and at most 10 years")
    return span.total_seconds()
