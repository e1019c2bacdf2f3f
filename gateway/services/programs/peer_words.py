"""The words that the aggregator uses of enrollments, and ours. A word that stands in neither list is unknown: it is
kept as it is, and shown."""

from gateway.domain.programs.facts import EnrollmentStatus, Preference

STATUS = {
    "ACTIVE": EnrollmentStatus.ACTIVE,
    "ELIGIBLE": EnrollmentStatus.ELIGIBLE,
    "PENDING": EnrollmentStatus.PENDING,
    "INELIGIBLE": EnrollmentStatus.INELIGIBLE,
    "NOT_PARTICIPATING": EnrollmentStatus.INELIGIBLE,
    "CANDIDATE": EnrollmentStatus.CANDIDATE,
}

REASON = {"NOT_PARTICIPATING": "not participating"}
"""What a status of the peer says beyond ours."""

PREFERENCE = {
    "PARTICIPATE": Preference.PARTICIPATE,
    "IDLE": Preference.PAUSED,
    "PAUSED": Preference.PAUSED,
    "DISENROLL": Preference.LEAVING,
    "LEAVING": Preference.LEAVING,
}


def status_of(word: str) -> tuple[EnrollmentStatus, str]:
    """Our status for a word, and the word itself where it is unknown."""
    known = STATUS.get(word.upper())
    return (EnrollmentStatus.UNKNOWN, word) if known is None else (known, "")


def preference_of(word: str) -> tuple[Preference, str]:
    """Our preference for a word, and the word itself where it is unknown."""
    known = PREFERENCE.get(word.upper())
    return (Preference.UNKNOWN, word) if known is None else (known, "")
