"""The application's audit policy; how long records are kept is the setting AUDIT_LOG_RETENTION_DAYS."""

from beat.hours import CLEAN_UP_AUDIT
from taskyard import AuditPolicy

POLICY = AuditPolicy(
    masked_fields=frozenset({"password", "private_key", "secret", "token"}),
    cleanup_cron=CLEAN_UP_AUDIT,
)
