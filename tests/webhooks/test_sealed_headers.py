"""Extra headers may be credentials: sealed at rest, sent as they are, and masked where a receiver echoes them."""

from sqlalchemy import text

from taskyard.webhooks.handlers import DeliveryDependencies, deliver
from taskyard.webhooks.http.response import Answer, mask_echoes
from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient
from taskyard.webhooks.payloads import DeliverWebhook
from tests.webhooks.receivers import Captured, Receiver, Reply
from tests.webhooks.webhook_rows import WebhookRows

TOKEN = "tok-2f9c1e7a"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "X-Key": 'quo"ted/päss'}


def test_headers_are_sent_as_given_sealed_at_rest_and_masked_in_excerpts(
    webhook_rows: WebhookRows, client: AiohttpWebhookClient, receiver: Receiver
) -> None:
    def echo(request: Captured) -> Reply:
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        return Reply(200, "\n".join([*lines, f"token={TOKEN}"]).encode())

    receiver.decides(echo)
    endpoint = webhook_rows.endpoint(url=receiver.url, extra_headers=HEADERS)
    (delivery,) = webhook_rows.emit()
    tools = DeliveryDependencies(webhook_rows.store, client, lambda _due: None, webhook_rows.settings, "worker-1")

    assert deliver(DeliverWebhook(delivery_id=delivery), tools).state == "delivered"

    (request,) = receiver.requests
    assert {name: request.headers[name] for name in HEADERS} == HEADERS
    row = webhook_rows.lane(endpoint)
    assert row.header_names == ["Authorization", "X-Key"]
    assert TOKEN not in str(row.model_dump())
    (attempt,) = webhook_rows.attempts(delivery)
    assert attempt.excerpt is not None
    assert "Authorization: ***" in attempt.excerpt
    for secret in (*HEADERS.values(), TOKEN, request.headers["webhook-signature"]):
        assert secret not in attempt.excerpt
    with webhook_rows.database.session() as session:
        rows = session.execute(text("SELECT * FROM taskyard_webhook_endpoints")).all()
    assert TOKEN not in str(rows)


def test_an_echo_in_json_in_a_url_or_cut_at_the_end_is_masked_too() -> None:
    echoes = '{"k": "quo\\"ted/p\\u00e4ss"} ?k=quo%22ted/p%C3%A4ss&k=quo%22ted%2Fp%C3%A4ss Bearer tok-2f9c'
    answer = Answer(status=500, excerpt=echoes, truncated=True)

    masked = mask_echoes(answer, HEADERS).excerpt

    assert masked == '{"k": "***"} ?k=***&k=*** ***'
