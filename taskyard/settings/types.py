"""Types of settings: each reads the text of an environment variable and refuses what has no meaning."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from taskyard.settings.parsing import (
    bearer_token,
    broker_url,
    csv_seconds,
    csv_words,
    database_url,
    event_types,
    http_codes,
    http_url,
    lower_case,
    master_keys,
    milliseconds,
    networks,
    seconds,
    worker_count,
)

type BrokerUrl = Annotated[str, AfterValidator(broker_url)]
type DatabaseUrl = Annotated[str, AfterValidator(database_url)]
type HttpUrl = Annotated[SecretStr, AfterValidator(http_url)]
type Seconds = Annotated[timedelta, BeforeValidator(seconds)]
type Timeout = Annotated[Seconds, Field(gt=timedelta(0))]
type BeatLease = Annotated[Seconds, Field(ge=timedelta(milliseconds=200), le=timedelta(seconds=60))]
type BeatAhead = Annotated[Seconds, Field(le=timedelta(seconds=60))]
type Milliseconds = Annotated[timedelta, BeforeValidator(milliseconds)]
type SecondsList = Annotated[tuple[timedelta, ...], BeforeValidator(csv_seconds), Field(min_length=1)]
type LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower_case)]
type LogFormat = Annotated[Literal["json", "console", "auto"], BeforeValidator(lower_case)]
type WorkerCount = Annotated[int, BeforeValidator(worker_count)]
type Words = Annotated[tuple[str, ...], BeforeValidator(csv_words)]
type HttpCodes = Annotated[tuple[str, ...], BeforeValidator(csv_words), AfterValidator(http_codes)]
type MasterKeys = Annotated[SecretStr, AfterValidator(master_keys)]
type EventTypes = Annotated[tuple[str, ...], BeforeValidator(csv_words), AfterValidator(event_types)]
type Interval = Annotated[Seconds, Field(gt=timedelta(0), le=timedelta(days=366))]  # longer is left out by beat
type Token = Annotated[SecretStr, AfterValidator(bearer_token)]
type Networks = Annotated[tuple[str, ...], BeforeValidator(csv_words), AfterValidator(networks)]
