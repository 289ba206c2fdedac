"""`make bench`: run all measurements, or those that are named, as in ``make bench ARGS="broker webhooks"``."""

import argparse
import importlib
import pkgutil
import sys

import bench
from bench.machine import describe


def main() -> int:
    """Run the chosen measurements one after the other."""
    known = sorted(name for _, name, _ in pkgutil.iter_modules(bench.__path__) if name not in {"__main__", "machine"})
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}; none: all")
    chosen = parser.parse_args().names or known
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    print(describe())
    for name in chosen:
        print(f"\n## {name}\n", flush=True)
        importlib.import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
