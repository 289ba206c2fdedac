"""The checks of a dump's files, before anything is restored: age, size, bytes."""

from collections.abc import Sequence
from datetime import timedelta

from tasks.backups.checks.verification_report import VerificationReport
from tasks.backups.dumps.checksums import DumpChecksums, ManifestError, compare, compute, read_manifest
from tasks.backups.dumps.dump_search import Dump
from tasks.backups.profile.schema import BackupProfile
from tasks.backups.store import LastGoodRun
from taskyard.database.columns import utc_now

CLOCK_TOLERANCE = timedelta(hours=1)  # a dump's time may be so far in the future


def check_files(
    dumps: Sequence[Dump], profile: BackupProfile, last_good: LastGoodRun | None, report: VerificationReport
) -> bool:
    """
    Check the newest dump's age, size and checksum; return whether it is worth restoring.

    An old or small dump is still restored, so that its content is known; one with a wrong checksum is not.

    Args:
        dumps: Newest first, at least one.
        profile: What is expected.
        last_good: The last run that passed: sizes are compared with its dump, since older files may be gone or bad.
        report: Collects the checks and the facts of the dump.

    Raises:
        InfrastructureError: The files cannot be read.
    """
    dump = dumps[0]
    report.dump, report.dump_taken_at, report.dump_bytes = dump.name, dump.taken_at, dump.size
    _check_age(dump, profile, report)
    _check_size(dumps, profile, last_good, report)
    if dump.size == 0:
        return False
    sums = compute(dump)
    report.dump_sha256 = sums.whole
    return _check_sums(dump, profile, sums, report)


def _check_age(dump: Dump, profile: BackupProfile, report: VerificationReport) -> None:
    age = utc_now() - dump.taken_at
    if age < -CLOCK_TOLERANCE:
        report.add("age", f"{dump.name} claims to be made at {dump.taken_at:%Y-%m-%d %H:%M} UTC", passed=False)
        return
    detail = f"{dump.name} is {_hours(age)} old, at most {_hours(profile.max_age)}"
    report.add("age", detail, passed=age <= profile.max_age)


def _check_size(
    dumps: Sequence[Dump], profile: BackupProfile, last_good: LastGoodRun | None, report: VerificationReport
) -> None:
    size = dumps[0].size
    if size < profile.min_bytes:
        report.add("size", f"{size} bytes, at least {profile.min_bytes}", passed=False)
        return
    if last_good is not None and last_good.dump_bytes:
        before, which = last_good.dump_bytes, "the last good one"
    elif len(dumps) > 1:
        before, which = dumps[1].size, dumps[1].name
    else:
        report.add("size", f"{size} bytes; there is no other to compare with", passed=True)
        return
    share = size / before if before else 1.0
    detail = f"{size} bytes, {share:.0%} of {which} ({before}); at least {profile.min_size_ratio:.0%}"
    report.add("size", detail, passed=share >= profile.min_size_ratio)


def _check_sums(dump: Dump, profile: BackupProfile, sums: DumpChecksums, report: VerificationReport) -> bool:
    if profile.manifest == "off":
        return True
    try:
        expected = read_manifest(dump)
    except ManifestError as error:
        return report.add("checksum", str(error), passed=False)
    if expected is None:
        is_needed = profile.manifest == "required"
        detail = f"there is no {dump.name}.sha256 and no SHA256SUMS"
        report.add("checksum", detail, passed=not is_needed)
        return True
    fault = compare(expected, sums)
    return report.add("checksum", fault or "the bytes are those that were written", passed=fault is None)


def _hours(age: timedelta) -> str:
    return f"{age / timedelta(hours=1):.1f} h"
