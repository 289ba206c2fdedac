"""Commands on webhooks: map the errors of webhooks to exit codes."""

from typing import Any

import click
from sqlmodel import col

from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, OperatorCommand
from taskyard.cli.kit.id_prefixes import IdParam
from taskyard.database.paging import BadCursorError
from taskyard.webhooks.delivery.endpoints import EndpointError, UnknownEndpointError
from taskyard.webhooks.event_types import EventTypeError
from taskyard.webhooks.http.ssrf_policy import UrlRefusedError
from taskyard.webhooks.models import Delivery, Endpoint
from taskyard.webhooks.operators.replay import EndpointDisabledError, UnknownDeliveryIdError
from taskyard.webhooks.signing.key_vault import SealedSecretError, VaultKeyError
from taskyard.webhooks.signing.schemes import SecretFormatError

ENDPOINT_ID = IdParam("endpoint", col(Endpoint.id))
DELIVERY_ID = IdParam("delivery", col(Delivery.id))
MISSING = (UnknownEndpointError, UnknownDeliveryIdError)
WRONG = (UrlRefusedError, EndpointError, EventTypeError, SecretFormatError, VaultKeyError, BadCursorError)
REFUSED = (EndpointDisabledError, SealedSecretError)


class _WebhookErrors(click.Command):
    """Translates the domain's errors, whose texts are written for people."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MISSING as error:
            raise NotFoundError(str(error)) from error
        except WRONG as error:
            raise click.UsageError(str(error)) from error
        except REFUSED as error:
            raise FailedError(str(error)) from error


class WebhookCommand(OperatorCommand, _WebhookErrors):
    """A command on webhooks; errors are one line and an exit code."""
