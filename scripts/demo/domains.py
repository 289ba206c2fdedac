"""The acts after the webhooks: backups, markets, their comparison with the chain, and a flow that is resumed."""

from pathlib import Path

from rich.console import Console

from scripts.demo.backups import demo_backups
from scripts.demo.flows import show_flow
from scripts.demo.markets import load_sample, show_reconciliation, show_resolution
from scripts.demo.show import DemoError
from scripts.standins.receiver import Receiver
from scripts.standins.soroban_node import StandinNode


def run_domains(console: Console, node: StandinNode, folder: Path) -> None:
    """
    Run the acts of the other domains on the demo's worker.

    Args:
        console: Takes a line for each thing that was shown.
        node: The chain that the worker reads; see :func:`scripts.demo.markets.chain_variables`.
        folder: Takes the backups; the flow's key lies beside it.

    Raises:
        DemoError: A verdict is wrong.
        ActError: A number is not what it must be, or did not come in time.
    """

    def say(line: str) -> None:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)

    console.print("\nBackups: one is made and verified, and a damaged one is caught")
    for act in demo_backups(folder):
        say(f"{act.title}: {act.state}" + (f" ({act.reason})" if act.reason else ""))
        if not act.is_right:
            raise DemoError(f"{act.title}: {act.state}, and not {act.expected}")
    sample = load_sample()
    console.print("\nMarkets: predictions are confirmed, markets resolved, subscribers told")
    with Receiver() as receiver:
        show_resolution(sample, receiver, say)
    console.print("\nReconciliation: the database beside the chain")
    show_reconciliation(sample, node, say)
    console.print("\nFlows: an order fails at its third step, is undone, mended and resumed")
    show_flow(folder.parent, say)
