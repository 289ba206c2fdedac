"""The composition root: :class:`Taskyard` puts the library's parts and an app's domains together."""

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from celery.signals import beat_init

from taskyard.broker.protocol.header import HEADER
from taskyard.broker.server.ownership import identify_by
from taskyard.broker.transport.options import transport_settings
from taskyard.broker.transport.result_backend import use_our_results
from taskyard.built_in import BUILT_IN
from taskyard.domain import Domain
from taskyard.history.audit_policy import AuditPolicy, use_policy
from taskyard.settings.celery_settings import celery_config
from taskyard.settings.loading import add_group, current_settings
from taskyard.settings.queues import declare
from taskyard.tasks.call_options import durations
from taskyard.tasks.canvas_checks import check_followers
from taskyard.tasks.current_app import PlatformApp, add_app
from taskyard.tasks.nested_publish import acquired_producer
from taskyard.tasks.platform_identity import own_platform
from taskyard.tasks.platform_task import PlatformTask


class Taskyard(PlatformApp):
    """
    A Celery app on Taskyard's transport, with typed tasks, dead letters, history and schedules.

    Settings are read when Celery first needs them, so that making an app touches no environment.
    """

    log_cls = "taskyard.tasks.process_logging:PlatformLogging"

    def __init__(
        self,
        main: str = "taskyard",
        *,
        domains: Sequence[Domain] = (),
        audit: AuditPolicy | None = None,
        **options: Any,
    ) -> None:
        """
        Make the app of this process.

        Args:
            main: The name of the app.
            domains: What it consists of beside its own modules; what is not listed does not exist in it.
            audit: What is recorded and masked, and when old records are removed; None: the library's defaults.
            options: As :class:`celery.Celery` takes them.

        Raises:
            ValueError: Two domains have one name, one setting or one queue with different profiles.
        """
        self.domains = (*BUILT_IN, *domains)
        names = [domain.name for domain in self.domains]
        if doubles := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two domains are called {', '.join(sorted(doubles))}")
        for domain in self.domains:
            if domain.settings is not None:
                add_group(domain.settings)
            for queue in domain.queues:
                declare(queue)
        use_policy(audit or AuditPolicy())
        modules = [module for domain in self.domains for module in domain.tasks]
        super().__init__(main, include=[*modules, *options.pop("include", ())], **options)
        self.add_defaults(self._configuration)
        use_our_results(self)
        identify_by(own_platform)
        add_app(self)
        self._add_commands()

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """Celery's worker with our steps, which only a worker's process imports."""
        from taskyard.broker.worker.portable_errors import use_portable_errors  # noqa: PLC0415 - as above
        from taskyard.broker.worker.signal_handlers import SoftSignals  # noqa: PLC0415 - as above
        from taskyard.history.writer.bootstep import EventWriterStep  # noqa: PLC0415 - as above
        from taskyard.monitor.in_worker import WorkerMonitor  # noqa: PLC0415 - as above
        from taskyard.tasks.broker_claim import BrokerClaim  # noqa: PLC0415 - as above
        from taskyard.tasks.platform_worker import PlatformWorker  # noqa: PLC0415 - as above
        from taskyard.tasks.slot_shares import SlotShares  # noqa: PLC0415 - as above
        from taskyard.tasks.start_checks import StartCheck  # noqa: PLC0415 - as above

        self.steps["worker"].update({EventWriterStep, BrokerClaim, SlotShares, SoftSignals, WorkerMonitor, StartCheck})
        use_portable_errors()  # before the pool makes its processes
        return self.subclass_with_self(PlatformWorker)

    def send_task(  # type: ignore[override]  # Celery's options pass through
        self, name: str, args: Any = None, kwargs: Any = None, **options: Any
    ) -> Any:
        """
        Send a task, as Celery does; all calls end here.

        A call by name keeps its result, as Celery's own default is: its caller has no task to ask whether it does.

        Raises:
            InvalidPayloadError: A step that follows it in a chain does not fit its task; nothing was sent.
        """
        if options.get("task_type") is None and options.get("ignore_result") is None:
            options["ignore_result"] = False
        check_followers(self, options)
        if facts := durations(options):
            headers = options.get("headers") or {}
            options["headers"] = {**headers, HEADER: {**(headers.get(HEADER) or {}), **facts}}
        return super().send_task(name, args, kwargs, **options)

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """Return a context of the given producer, or of one that may publish now."""
        acquire = super().producer_or_acquire(producer)
        return acquire if producer is not None else acquired_producer(self, acquire)

    def _configuration(self) -> dict[str, Any]:
        settings = current_settings()
        ours = {"task_routes": (self._queue_of,), "beat_scheduler": "taskyard.beat.scheduler:Scheduler"}
        return celery_config(settings) | transport_settings(settings) | ours

    def _queue_of(self, name: str, *_: Any, **__: Any) -> dict[str, str] | None:
        """Route a task of ours to the queue it was declared with; Celery asks for every message that names no queue."""
        declared = self.tasks.get(name)
        return {"queue": declared.home.name} if isinstance(declared, PlatformTask) else None

    def _add_commands(self) -> None:
        """Inside `celery`, add the groups of the domains: `-A` is read before a command is looked up."""
        if "celery.bin.celery" in sys.modules:
            from taskyard.cli.commands import add_groups  # noqa: PLC0415 - only the `celery` command needs it
            from taskyard.tasks.green_pools import pool_check  # noqa: PLC0415 - as above

            add_groups(self.domains)
            self.user_options["worker"].add(pool_check())


@beat_init.connect
def _start_monitor(sender: Any, **_: Any) -> None:
    """Let beat answer scrapes; only beat imports the monitor."""
    from taskyard.monitor import in_beat  # noqa: PLC0415 - as above

    in_beat.start(sender)
