"""Output of the processes, each line with its process name."""

import json
from collections.abc import Sequence
from typing import TextIO

from taskyard.logging import harmless

LONGEST_LINE = 1_048_576  # bytes of an unfinished line
COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # ANSI codes, without red, which marks errors


class LogPrefixer:
    """Writes `name | line`, coloured on a terminal; with JSON logs the name becomes the field `process`."""

    def __init__(self, names: Sequence[str], out: TextIO, *, as_json: bool, in_colour: bool) -> None:
        """`names` of all processes; `out` must not block, see :mod:`taskyard.launch.nonblocking_log`."""
        self._out, self._as_json = out, as_json
        width = max(map(len, names), default=0)
        self._prefixes = {name: f"{name:<{width}} | " for name in names}
        if in_colour:
            for number, name in enumerate(names):
                colour = COLOURS[number % len(COLOURS)]
                self._prefixes[name] = f"\x1b[{colour}m{self._prefixes[name]}\x1b[0m"
        self._rests = dict.fromkeys(names, b"")

    def feed(self, name: str, data: bytes) -> None:
        """Add output of a process; complete lines are printed."""
        *lines, rest = (self._rests[name] + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        self._rests[name] = rest
        self._print(name, lines)

    def end(self, name: str) -> None:
        """Print the unfinished last line of a process that exited."""
        rest, self._rests[name] = self._rests[name], b""
        self._print(name, [rest])

    def _print(self, name: str, lines: list[bytes]) -> None:
        texts = [line.decode(errors="replace").rstrip() for line in lines]
        self._out.write("".join(f"{self._shown(name, text)}\n" for text in texts if text))

    def _shown(self, name: str, text: str) -> str:
        if not self._as_json:
            return self._prefixes[name] + harmless(text)
        if text.startswith('{"'):
            return f'{{"process": {json.dumps(name)}, {text[1:]}'
        return json.dumps({"process": name, "event": text})
