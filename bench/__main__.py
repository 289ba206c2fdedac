"""`make bench`: run all measurements, or those that are named, as in ``make bench ARGS="broker --rounds 1"``."""

import argparse
import importlib
import pkgutil
import sys

import bench
from bench.machine import describe

HELPERS = {"__main__", "databases", "machine", "receivers", "soak_tasks", "flow_tasks"}


def main() -> int:
    """Run the chosen measurements one after the other."""
    known = sorted(name for _, name, _ in pkgutil.iter_modules(bench.__path__) if name not in HELPERS)
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}; none: all")
    options, rest = parser.parse_known_args()
    chosen = options.names or known
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    if rest and len(chosen) != 1:
        parser.error(f"{' '.join(rest)}: options are for one measurement, and {len(chosen)} are chosen")
    print(describe())
    for name in chosen:
        print(f"\n## {name}\n", flush=True)
        importlib.import_module(f"bench.{name}").main(rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
