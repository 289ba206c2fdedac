"""One thing that `doctor` looked at; each domain can give its own."""

from dataclasses import dataclass
from typing import Literal

type Verdict = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    note: str
    fix: str = ""  # what to do; empty when it is in order
