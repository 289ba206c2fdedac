"""Print what a receiver verifies with: a shared secret, once, or a public key."""

from typing import Any

import click

from taskyard.cli.kit.output import print_facts, print_json
from taskyard.webhooks.signing.schemes import PUBLIC_PREFIX


def print_with_key(facts: dict[str, Any], key: str, *, as_json: bool) -> None:
    """Print facts of an endpoint with its new key (``whsec_`` or ``whpk_``)."""
    is_public = key.startswith(PUBLIC_PREFIX)
    shown = {**facts, "public_key" if is_public else "secret": key}
    if as_json:
        print_json(shown)
        return
    print_facts(shown)
    if is_public:
        click.echo("Give the public key to the receiver; `endpoints show` prints it again.", err=True)
    else:
        click.echo("The secret is not shown again: give it to the receiver now.", err=True)
