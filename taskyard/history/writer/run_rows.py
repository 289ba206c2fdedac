"""Rows of runs and attempts as plain objects: the reducer sets a dozen attributes per event, slow on SQLModel's."""

from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticUndefined

from taskyard.history.models import Attempt, Run

if TYPE_CHECKING:
    RunRow = Run
    AttemptRow = Attempt
else:

    def _plain_class(name: str, model: Any) -> Any:
        """Make a class with the columns and defaults of a table, in its order; None where it requires a value."""
        defaults = [(column, info.default) for column, info in model.model_fields.items()]
        columns = [
            (column, Any, field(default=None if default is PydanticUndefined else default))
            for column, default in defaults
        ]
        return make_dataclass(name, columns, slots=True, module=__name__)

    RunRow = _plain_class("RunRow", Run)
    AttemptRow = _plain_class("AttemptRow", Attempt)
