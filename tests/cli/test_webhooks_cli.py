"""Webhooks on the command line: what operators see and change, on both databases."""

from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlmodel import col

from taskyard.history.operator_log import Operation
from taskyard.webhooks.models import Delivery, Endpoint, Event, Secret
from tests.cli.webhooks_command import IN_ANSWER, IN_BODY, WebhooksCommand
from tests.databases import Database

UNKNOWN = "7d6f7a0c-3f5c-4b8a-9f57-4d6f7a0c3f5c"


@pytest.fixture
def cli(database: Database, tmp_path: Path) -> WebhooksCommand:
    return WebhooksCommand(database, tmp_path)


def test_a_new_endpoint_shows_its_secret_once_and_stores_it_encrypted(cli: WebhooksCommand) -> None:
    added = cli.run("endpoints", "add", "https://example.com/hook", "--event", "market.*", "--json")
    assert added.code == 0, added.err
    secret, endpoint_id = added.json["secret"], added.json["id"]
    assert secret.startswith("whsec_")
    later = [cli.run("endpoints", "ls"), cli.run("endpoints", "show", endpoint_id, "--json")]
    assert [one.code for one in later] == [0, 0]
    assert all(endpoint_id in one.out and secret not in one.out + one.err for one in later)
    with cli.database.session() as session:
        assert secret not in session.scalars(select(col(Secret.ciphertext))).one()


def test_a_secret_of_ones_own_comes_by_stdin_and_header_values_stay_hidden(cli: WebhooksCommand) -> None:
    own = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    words = ("--event", "*", "--secret-stdin", "--header", "Authorization: Bearer hush", "--retry-delays", "5s,2h")
    added = cli.run("endpoints", "add", "https://example.com/hook", *words, "--json", stdin=f"{own}\n")
    assert added.json["secret"] == own
    shown = cli.run("endpoints", "show", added.json["id"], "--json")
    assert shown.json["extra_headers"] == ["Authorization"]
    assert shown.json["retry_delays"] == [5.0, 7200.0]
    assert "hush" not in shown.out


def test_an_empty_secret_is_refused(cli: WebhooksCommand) -> None:
    """A pipe from a file that is not there must not end in another secret than the receiver has."""
    words = ("endpoints", "add", "https://example.com/hook", "--event", "*", "--secret-stdin")
    refused = cli.run(*words, stdin="\n")
    assert (refused.code, refused.out) == (2, "")
    assert cli.run("endpoints", "ls", "--json").json["items"] == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("endpoints add https://example.com/hook --event market..x", 2, "event type 'market..x'"),
        ("endpoints add ftp://example.com/hook --event *", 2, "https://"),
        ("endpoints add https://10.0.0.1/hook --event *", 2, "IP address"),
        ("endpoints add https://example.com/hook --event * --max-concurrency 0", 2, "between 1 and 1000"),
        ("endpoints add https://example.com/hook --event * --header nonsense", 2, "Name: value"),
        ("endpoints add https://example.com/hook --event * --retry-delays soon", 2, "is not a duration"),
        (f"endpoints show {UNKNOWN}", 3, "no endpoint"),
        ("endpoints show nobody", 2, "is not an id"),
        ("endpoints show 12", 3, "no endpoint with an id that begins with '12'"),
        (f"endpoints disable {UNKNOWN} --yes --reason test", 3, "no endpoint"),
        (f"endpoints rm {UNKNOWN} --yes", 3, "no endpoint"),
        (f"deliveries show {UNKNOWN}", 3, "no webhook delivery"),
        (f"deliveries ls --endpoint {UNKNOWN}", 3, "no endpoint"),
        ("deliveries ls --state lost", 2, "'lost'"),
        ("deliveries ls --since yesterday", 2, "is not a time"),
        (f"send-test {UNKNOWN}", 3, "no endpoint"),
        (f"redeliver {UNKNOWN}", 3, "no webhook delivery"),
        ("redeliver", 2, "--failed"),
        ("redeliver --failed --yes", 2, "nothing selected"),
        ("redeliver --failed --all", 2, "nothing was changed"),
        ("redeliver --failed --type a..b --yes", 2, "event type"),
        (f"recover {UNKNOWN} --since 2h --yes", 3, "no endpoint"),
        (f"recover {UNKNOWN} --yes", 2, "--since is required"),
        (f"rotate-secret {UNKNOWN}", 3, "no endpoint"),
        (f"rotate-secret {UNKNOWN} --overlap 8d", 2, "7 days"),
        ("new-key --id a:b", 2, "master key"),
    ],
)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_bad_input_is_one_clear_line_and_writes_nothing(cli: WebhooksCommand, words: str, code: int, says: str) -> None:
    ended = cli.run(*words.split())
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert says in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert _rows(cli) == 0


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_invalid_settings_are_one_line_each_and_exit_with_2(cli: WebhooksCommand) -> None:
    cli.more = {"WEBHOOK_MAX_BODY": "many", "WEBHOOK_ALOW_NETS": "10.0.0.0/8"}
    ended = cli.process("endpoints", "ls")
    assert ended.code == 2
    assert "WEBHOOK_MAX_BODY" in ended.err
    assert "WEBHOOK_ALOW_NETS: not a setting" in ended.err
    assert "Traceback" not in ended.err


def test_a_filter_must_fit_an_event_type_that_exists(cli: WebhooksCommand) -> None:
    cli.more = {"WEBHOOK_EVENT_TYPES": "market.created,market.resolved"}
    refused = cli.run("endpoints", "add", "https://example.com/hook", "--event", "order.*")
    assert refused.code == 2
    assert "known: market.created, market.resolved" in refused.err
    assert _rows(cli) == 0


def test_rotation_prints_a_new_secret_and_lets_the_old_one_sign_on(cli: WebhooksCommand) -> None:
    endpoint_id = cli.endpoint()
    rotated = cli.run("rotate-secret", str(endpoint_id), "--overlap", "2h", "--json")
    assert rotated.code == 0, rotated.err
    assert rotated.json["secret"].startswith("whsec_")
    with cli.database.session() as session:
        expiries = list(session.scalars(select(col(Secret.expires_at)).order_by(col(Secret.created_at))))
    assert [moment is None for moment in expiries] == [False, True]


def test_disabling_needs_a_word_and_a_reason_and_parks_what_was_to_come(cli: WebhooksCommand) -> None:
    endpoint_id = cli.endpoint()
    ids = cli.deliveries(3)
    assert cli.run("endpoints", "disable", str(endpoint_id), "--yes").code == 2
    dry = cli.run("endpoints", "disable", str(endpoint_id), "--dry-run", "--json")
    assert dry.json == {"id": str(endpoint_id), "result": "would be disabled", "deliveries": 3}
    assert cli.stored(endpoint_id).enabled
    done = cli.run("endpoints", "disable", str(endpoint_id), "--yes", "--reason", "moved", "--json")
    assert done.json["deliveries"] == 3
    assert cli.states(*ids) == ["parked"] * 3
    assert cli.stored(endpoint_id).disabled_reason == "moved"


def test_an_endpoint_with_history_is_not_removed(cli: WebhooksCommand) -> None:
    empty, used = cli.endpoint("https://example.com/empty", "other.type"), cli.endpoint()
    cli.deliveries(1)
    assert cli.run("endpoints", "rm", str(empty)).code == 2
    assert cli.run("endpoints", "rm", str(empty), "--dry-run").code == 0
    assert cli.run("endpoints", "rm", str(empty), "--yes").code == 0
    refused = cli.run("endpoints", "rm", str(used), "--yes")
    assert refused.code == 2
    assert "disable it instead" in refused.err
    with cli.database.session() as session:
        assert session.scalars(select(col(Endpoint.id))).all() == [used]


def test_pages_of_deliveries_hold_each_once_and_no_body(cli: WebhooksCommand) -> None:
    cli.endpoint()
    ids = cli.deliveries(5)
    first = cli.run("deliveries", "ls", "--limit", "3", "--json")
    second = cli.run("deliveries", "ls", "--limit", "3", "--after", first.json["next"], "--json")
    assert second.json["next"] is None
    found = [item["id"] for page in (first, second) for item in page.json["items"]]
    assert sorted(found) == sorted(map(str, ids))
    assert IN_BODY not in first.out + second.out


def test_deliveries_are_found_by_state_type_endpoint_and_time(cli: WebhooksCommand) -> None:
    one = cli.endpoint("https://example.com/one", "market.resolved")
    cli.endpoint("https://example.com/two", "order.filled")
    resolved, filled = cli.deliveries(2), cli.deliveries(1, "order.filled")
    cli.exhaust(resolved[0])
    words = {
        ("--state", "exhausted"): {resolved[0]},
        ("--type", "order.filled"): set(filled),
        ("--endpoint", str(one), "--state", "pending"): {resolved[1]},
        ("--until", "1h"): set(),
        ("--since", "1h"): {*resolved, *filled},
    }
    for filters, expected in words.items():
        ended = cli.run("deliveries", "ls", "--json", *filters)
        assert {item["id"] for item in ended.json["items"]} == set(map(str, expected)), filters


def test_a_delivery_shows_its_timeline_but_never_its_body(cli: WebhooksCommand) -> None:
    cli.endpoint()
    (delivery,) = cli.deliveries(1)
    cli.exhaust(delivery)
    as_json = cli.run("deliveries", "show", str(delivery), "--json")
    assert as_json.json["body_bytes"] > len(IN_BODY)
    assert len(as_json.json["body_sha256"]) == 64
    assert [(entry["number"], entry["answer"]) for entry in as_json.json["timeline"]] == [(1, "HTTP 500")]
    plain, with_answers = (cli.run("deliveries", "show", str(delivery), *more) for more in ((), ("--answers",)))
    assert "HTTP 500" in plain.out
    assert IN_ANSWER not in as_json.out + plain.out
    assert IN_ANSWER in with_answers.out
    assert IN_BODY not in as_json.out + plain.out + with_answers.out


def _rows(cli: WebhooksCommand) -> int:
    with cli.database.session() as session:
        return sum(session.scalar(select(func.count()).select_from(each)) or 0 for each in (Endpoint, Event, Delivery))


def test_an_ed25519_endpoint_prints_its_public_key_whenever_it_is_asked(cli: WebhooksCommand) -> None:
    added = cli.run("endpoints", "add", "https://example.com/hook", "--event", "*", "--ed25519", "--json")
    assert added.code == 0, added.err
    key = added.json["public_key"]
    assert key.startswith("whpk_")
    assert "secret" not in added.json
    shown = cli.run("endpoints", "show", added.json["id"], "--json")
    assert (shown.json["public_keys"], shown.json["sends_predictify"]) == ([key], False)
    rotated = cli.run("rotate-secret", added.json["id"], "--json")
    assert rotated.json["public_key"].startswith("whpk_")
    plain = cli.run("endpoints", "show", added.json["id"])
    assert key in plain.out
    assert rotated.json["public_key"] in plain.out
    assert "whsk_" not in added.out + shown.out + rotated.out + plain.out
    refused = cli.run("endpoints", "add", "https://example.com/x", "--event", "*", "--ed25519", "--no-standard")
    assert (refused.code, refused.out) == (2, "")
    assert "unsigned" in refused.err


def test_an_endpoint_is_edited_and_the_operator_log_says_what_changed(cli: WebhooksCommand) -> None:
    words = ("--event", "market.*", "--rate", "20", "--header", "X-Key: hush-hush")
    endpoint = cli.run("endpoints", "add", "https://example.com/old", *words, "--json").json["id"]
    new = ("--url", "https://example.com/new", "--event", "order.*", "--rate", "5", "--header", "X-Key: other-word")
    edited = cli.run("endpoints", "edit", endpoint, *new, "--reason", "moved", "--json")
    assert edited.code == 0, edited.err
    shown = cli.run("endpoints", "show", endpoint, "--json").json
    assert (shown["url"], shown["patterns"], shown["rate_per_second"]) == ("https://example.com/new", ["order.*"], 5.0)
    with cli.database.session() as session:
        row = session.scalars(select(Operation).where(col(Operation.verb) == "webhooks endpoints edit")).one()
    assert (row.target, row.reason) == (endpoint, "moved")
    assert row.filter == {
        "url": ["https://example.com/old", "https://example.com/new"],
        "patterns": [["market.*"], ["order.*"]],
        "rate_per_second": [20.0, 5.0],
        "header_names": [["X-Key"], ["X-Key"]],
    }
    assert edited.json["changed"] == row.filter
    assert "hush" not in edited.out + str(row.filter)


def test_what_an_edit_takes_away_or_refuses(cli: WebhooksCommand) -> None:
    words = (
        "--event",
        "*",
        "--rate",
        "20",
        "--max-concurrency",
        "3",
        "--header",
        "X-Key: hush",
        "--retry-delays",
        "5s",
    )
    endpoint = cli.run("endpoints", "add", "https://example.com/hook", *words, "--retry-delays", "5s", "--json").json[
        "id"
    ]
    for bad, says in {
        ("--url", "ftp://example.com"): "https://",
        ("--rate", "0"): "rate_per_second",
        ("--no-standard", "--no-predictify"): "signature",
        ("--event", "a..b"): "event type",
        (): "nothing to change",
    }.items():
        refused = cli.run("endpoints", "edit", endpoint, *bad)
        assert (refused.code, refused.out) == (2, ""), bad
        assert says in refused.err
    assert cli.run("endpoints", "edit", UNKNOWN, "--rate", "1").code == 3
    nothing = ("--rate", "none", "--max-concurrency", "none", "--retry-delays", "none", "--no-headers")
    assert cli.run("endpoints", "edit", endpoint, *nothing).code == 0
    shown = cli.run("endpoints", "show", endpoint, "--json").json
    names = ("rate_per_second", "max_concurrency", "retry_delays", "extra_headers", "patterns")
    assert [shown[name] for name in names] == [None, None, None, [], ["*"]]
