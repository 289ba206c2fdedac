"""Which step of which flow a message belongs to: the text that travels in its header."""

from typing import Any, NamedTuple, Self
from uuid import UUID, uuid5

from taskyard.broker.protocol.header import FLOW_HEADER

__all__ = ["FLOW_HEADER", "StepRef"]


LARGEST = 2**31 - 1  # of a column of whole numbers


class StepRef(NamedTuple):
    """One release of one step."""

    flow_id: UUID
    seq: int
    generation: int

    def to_header(self) -> str:
        """Return the text of the message header."""
        return f"{self.flow_id}:{self.seq}:{self.generation}"

    def run_id(self) -> str:
        """Return the id of the run of this release: whoever sends it, and however often, it is one run."""
        return str(uuid5(self.flow_id, f"{self.seq}:{self.generation}"))

    @classmethod
    def read(cls, text: Any) -> Self | None:
        """Return what a header says; None: it is none of ours."""
        try:
            flow_id, seq, generation = str(text).split(":")
            ref = cls(UUID(flow_id), int(seq), int(generation))
        except ValueError:
            return None
        return ref if 0 <= ref.seq <= LARGEST and 0 <= ref.generation <= LARGEST else None
