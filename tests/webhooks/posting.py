"""What the tests of the HTTP client share: settings for loopback, short timeouts, one post."""

from datetime import timedelta

from taskyard.webhooks.http.response import Answer, Timeouts
from taskyard.webhooks.http.ssrf_policy import parse_nets
from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient, ClientOptions

LOCAL = ClientOptions(allow_nets=parse_nets("127.0.0.0/8"), allow_http=True)
QUICK = Timeouts(connect=timedelta(seconds=0.5), total=timedelta(seconds=1), body=timedelta(seconds=0.3))
PATIENT = Timeouts()
HEADERS = {"Content-Type": "application/json", "webhook-id": "msg_1"}


def posted(options: ClientOptions, url: str, timeouts: Timeouts = PATIENT) -> Answer:
    """Post once with a client of its own."""
    client = AiohttpWebhookClient(options)
    try:
        return client.post(url, HEADERS, b"{}", timeouts=timeouts)
    finally:
        client.close()
