"""Why a verification could not be made; a backup that is bad is a result, not an error."""

from taskyard import PermanentError


class InfrastructureError(Exception):
    """The scratch server, a disk or a network failed, so nothing is known about the backup; trying again may help."""


class BackupConfigError(PermanentError):
    """A setting or a profile is missing or wrong; a person must change it."""

    dead_letter_reason = "configuration"


class UnknownTargetError(BackupConfigError, LookupError):
    """There is no profile of this name; the text lists those that exist."""


class ScratchRefusedError(BackupConfigError):
    """The place to restore into is a live database, or a database that is not ours; nothing was changed."""
