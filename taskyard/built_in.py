"""The domains of the library, which every app has: records, webhooks, flows."""

from taskyard.domain import CommandGroup, Domain
from taskyard.settings.queues import DEAD_LETTERS, DEFAULT, MAINTENANCE, SLOW_WEBHOOKS, WEBHOOKS

RECORDS_DOMAIN = Domain(
    "records",
    tasks=("taskyard.tasks.dead_letters.task", "taskyard.tasks.records.tasks"),
    queues=(DEFAULT, DEAD_LETTERS, MAINTENANCE),
    timetable="taskyard.built_in_timetable:records_timetable",
)
WEBHOOKS_DOMAIN = Domain(
    "webhooks",
    tasks=("taskyard.webhooks.tasks",),
    queues=(WEBHOOKS, SLOW_WEBHOOKS),
    timetable="taskyard.built_in_timetable:webhooks_timetable",
    gauges="taskyard.webhooks.metrics:figures",
    checks="taskyard.webhooks.signing_keys_check:findings",
    commands=(
        CommandGroup("webhooks", "taskyard.cli.webhooks.commands", "Webhooks: endpoints, deliveries, send again."),
    ),
)
FLOWS_DOMAIN = Domain(
    "flows",
    tasks=("taskyard.flows.tasks",),
    timetable="taskyard.built_in_timetable:flows_timetable",
    gauges="taskyard.flows.metrics:figures",
    checks="taskyard.flows.checks:findings",
    commands=(
        CommandGroup(
            "flows", "taskyard.cli.flows.commands", "Flows: list, show, resume, retry, skip, approve, cancel."
        ),
    ),
)
BUILT_IN = (RECORDS_DOMAIN, WEBHOOKS_DOMAIN, FLOWS_DOMAIN)
