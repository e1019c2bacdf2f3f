"""What a customer, or somebody for them, has to do: consents that are missing or end, meters that are not known."""

from collections.abc import Sequence

from gateway.domain.programs.facts import (
    Consent,
    Enrollment,
    EnrollmentStatus,
    Fact,
    Holding,
    MeterDevice,
    SubjectKind,
    Withdrawal,
)

DAY_MS = 86_400_000
SOON_MS = 30 * DAY_MS


def required_actions(facts: Sequence[Fact], now_ms: int) -> list[str]:
    """In words, of one customer. `facts`: its consents, and what is known of what it has now."""
    found: list[str] = []
    held = [fact.subject for fact in facts if isinstance(fact, Holding) and fact.holds(now_ms)]
    programs = {
        fact.program
        for fact in facts
        if isinstance(fact, Enrollment) and fact.subject in held and now_ms < fact.period.until_ms
        and fact.status is not EnrollmentStatus.INELIGIBLE
    }  # fmt: skip
    for program in sorted(programs | {fact.program for fact in facts if isinstance(fact, Consent)}):
        action = _of_consent(program, facts, now_ms, wanted=program in programs)
        if action:
            found.append(action)
    behind = {fact.device for fact in facts if isinstance(fact, MeterDevice) and fact.holds(now_ms)}
    for subject in sorted(set(held)):
        if subject.kind is SubjectKind.DEVICE and subject.id not in behind:
            found.append(f"no meter id of {subject.id}")
    return found


def _of_consent(program: str, facts: Sequence[Fact], now_ms: int, *, wanted: bool) -> str:
    void_ms = max((f.at_ms for f in facts if isinstance(f, Withdrawal) and f.program == program), default=-1)
    given = [f for f in facts if isinstance(f, Consent) and f.program == program]
    good = [f for f in given if f.given_ms > void_ms]
    if not good:
        why = "was withdrawn" if given else "is missing"
        return f"consent to {program} {why}" if wanted else ""
    ends = [f.expires_ms for f in good]
    if None in ends:
        return ""
    last_ms = max(end for end in ends if end is not None)
    if last_ms <= now_ms:
        return f"consent to {program} has expired"
    days = (last_ms - now_ms) // DAY_MS
    return f"consent to {program} expires in {days} days" if last_ms - now_ms < SOON_MS else ""
