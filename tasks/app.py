"""The application: Taskyard with these domains. A new one is a folder and a line here."""

from audit.domain import AUDIT_DOMAIN
from audit.policy import POLICY
from tasks.backups.domain import BACKUPS_DOMAIN
from tasks.markets.domain import MARKETS_DOMAIN
from tasks.reconciliation.domain import RECONCILIATION_DOMAIN
from taskyard import Taskyard

DOMAINS = (
    AUDIT_DOMAIN,
    BACKUPS_DOMAIN,
    MARKETS_DOMAIN,
    RECONCILIATION_DOMAIN,
)

app = Taskyard("taskyard", domains=DOMAINS, audit=POLICY)
