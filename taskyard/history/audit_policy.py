"""The audit policy of an app: which values no record shows, and when old records are removed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AuditPolicy:
    """What an app wants of its history beside the settings; how long it is kept is AUDIT_LOG_RETENTION_DAYS."""

    masked_fields: frozenset[str] = frozenset()  # payload fields shown as *** in every task, as if they were Hidden
    cleanup_cron: str = "0 3 * * *"  # when old records are deleted, UTC


_policies: list[AuditPolicy] = [AuditPolicy()]


def use_policy(policy: AuditPolicy) -> None:
    """Make a policy that of this process."""
    _policies[:] = [policy]


def current_policy() -> AuditPolicy:
    """Return the policy of this process."""
    return _policies[0]
