"""The counts of uploads to the aggregator, and the metrics made of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.observability.metrics import Sample, counter, gauge

SINK = "sinks of kind `leap_csv`"

METERS = gauge("gateway_leap_meters", "Devices that have a meter.", sink=SINK)
METERS_FAILING = gauge("gateway_leap_meters_failing", "1 while the newest file of meters is not in force.", sink=SINK)
OTHER_LENGTH = gauge("gateway_leap_other_length", "Meters without quarters of an hour.", sink=SINK)
WAITING = gauge("gateway_leap_waiting", "Rows that wait.", sink=SINK)
UPLOADS = counter("gateway_leap_uploads", "Files uploaded.", sink=SINK)
FAILED_JOBS = counter("gateway_leap_failed_jobs", "Upload jobs that failed.", sink=SINK)
SUPERSEDED = counter("gateway_leap_superseded", "Rows that a newer revision replaced first.", sink=SINK)
MISSING_UNREAD = counter("gateway_leap_missing_unread", "Missing intervals told unreadably.", sink=SINK)
REFUSED = counter(
    "gateway_leap_refused",
    "Rows withheld or refused, by reason.",
    sink=SINK,
    reason="`withheld_*`, `no_meter` and the aggregator's codes",
)


@dataclass(slots=True)
class LeapStats:
    """`other_length`: devices with a meter whose newest record is not of 15 minutes and is never uploaded. `uploads`
    and `jobs_failed` count files, the others rows; a batch that is tried again counts again. `waiting`: rows of the
    newest batch that wait, by reason."""

    other_length: int = 0
    uploads: int = 0
    jobs_failed: int = 0
    superseded: int = 0
    missing_unread: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)

    def samples(self, sink: str, *, meters: int, failing: bool) -> Iterator[Sample]:
        """`meters`: devices that have one; `failing`: whether the newest file of meters is not in force."""
        yield METERS.sample(meters, sink=sink)
        yield METERS_FAILING.sample(float(failing), sink=sink)
        yield OTHER_LENGTH.sample(self.other_length, sink=sink)
        yield WAITING.sample(sum(self.waiting.values()), sink=sink)
        yield UPLOADS.sample(self.uploads, sink=sink)
        yield FAILED_JOBS.sample(self.jobs_failed, sink=sink)
        yield SUPERSEDED.sample(self.superseded, sink=sink)
        yield MISSING_UNREAD.sample(self.missing_unread, sink=sink)
        yield from REFUSED.each(self.refused, sink=sink)
