"""Metrics of the telemetry path: every settlement message and its energy, the spool, and what a start recovered."""

from collections.abc import Iterable

from gateway.domain.intervals.types import SampleCounts
from gateway.observability.metrics import Sample, counter, gauge
from gateway.storage.recovery import RecoveryStats
from gateway.storage.spool.spool import Spool

SETTLEMENT_ROWS_COUNTED = counter("gateway_settlement_rows_counted", "Settlement messages counted, replayed ones too.")
SETTLEMENT_ROWS_NEW = counter("gateway_settlement_rows_new", "Settlement messages that were counted as new.")
SETTLEMENT_MALFORMED = counter(
    "gateway_settlement_malformed", "Settlement messages with an impossible boot or sequence."
)
DUPLICATES = counter("gateway_duplicates", "Settlement messages that had been counted before.")
GAPS_GIVEN_UP = counter(
    "gateway_sequence_gaps_given_up", "Gaps of sequence numbers that a device had too many of to remember."
)
TOO_OLD = counter("gateway_too_old", "Settlement messages too old to be told from duplicates.")
SEQUENCE_GAPS = counter("gateway_sequence_gaps", "Settlement messages that were never received.")
LATE_ROWS = counter("gateway_late_rows", "Settlement messages for intervals older than the newest two.")
LATE_WH = counter("gateway_late_wh", "Energy of messages for intervals older than the newest two.")
LOST_ROWS = counter("gateway_lost_rows", "Settlement messages that belong to no interval any more.")
LOST_WH = counter("gateway_lost_wh", "Energy of messages that belong to no interval any more.")
INTERVAL_RECORDS_MADE = counter("gateway_interval_records_made", "Records of intervals made, revisions included.")
INTERVAL_REVISIONS = counter("gateway_interval_revisions", "Records of intervals that replace an earlier one.")
INTERVAL_REPAIRS = counter("gateway_interval_repairs", "Intervals made again from late data.")
TIME_REPLACED = counter("gateway_time_replaced", "Settlement messages that go by the time of receipt.")
TIME_CORRECTED = counter("gateway_time_corrected", "Settlement messages whose time is corrected for their clock.")
TIME_DOUBTED = counter("gateway_time_doubted", "Settlement messages whose clock may be wrong, used as they are.")
ENERGY_RESETS = counter("gateway_energy_resets", "Energy counters that began anew.")
ENERGY_OUTLIERS = counter("gateway_energy_outliers", "Readings of energy counters that the next one did not stand on.")
ENERGY_ROLLOVERS = counter("gateway_energy_rollovers", "Energy counters that went past their end.")
ENERGY_JUMPS = counter("gateway_energy_jumps", "Energies beyond what a battery could move, left out.")
ENERGY_JUMP_WH = counter("gateway_energy_jump_wh", "Energy beyond what a battery could move, left out.")
ENERGY_POWERS_REFUSED = counter("gateway_energy_powers_refused", "Powers beyond a battery's rating, made unknown.")
ENERGY_SILENCES = counter("gateway_energy_silences", "Silences longer than an interval, by counter.")
ENERGY_SPREAD_WH = counter("gateway_energy_spread_wh", "Energy of silences that was shared by time.")
ENERGY_UNATTRIBUTED_WH = counter("gateway_energy_unattributed_wh", "Energy that no interval has.")
ENERGY_SPANS_REFUSED = counter("gateway_energy_spans_refused", "Energies of an impossible span or sign, left out.")
ENERGY_SPANS_UNUSED = counter(
    "gateway_energy_spans_unused", "Energies without a counter of devices that have one, left to the counter."
)
ENERGY_COMPARISONS = counter("gateway_energy_comparisons", "Days of integration compared with a coarse counter.")
ENERGY_DRIFTS = counter("gateway_energy_drifts", "Days on which integration was off its counter.")
ENERGY_DRIFT_WH = counter("gateway_energy_drift_wh", "Energy by which integration was off its counter.")

SPOOL_RECORDS = counter("gateway_spool_records", "Records that became durable.")
SPOOL_WRITTEN_BYTES = counter("gateway_spool_written_bytes", "Bytes that became durable.")
SPOOL_COMMITS = counter("gateway_spool_commits", "Commits of the spool.")
SPOOL_FAILURES = counter("gateway_spool_failures", "Failed commits of the spool.")
SPOOL_DROPPED_SEGMENTS = counter("gateway_spool_dropped_segments", "Segments that were needed no more.")
SPOOL_CORRUPT_SEGMENTS = counter("gateway_spool_corrupt_segments", "Damaged segments that were set aside.")
SPOOL_SEGMENTS = gauge("gateway_spool_segments", "Spool segments.")
SPOOL_SEGMENT_BYTES = gauge("gateway_spool_segment_bytes", "Bytes in spool segments.")
SPOOL_UNCOUNTED_BYTES = gauge("gateway_spool_uncounted_bytes", "Bytes that the spool's limit leaves out.")
SPOOL_QUEUE_BYTES = gauge("gateway_spool_queue_bytes", "Bytes that are not durable yet.")
SPOOL_FAILING = gauge("gateway_spool_failing", "1 while nothing becomes durable.")

RECOVERY_REPLAYED = counter("gateway_recovery_replayed", "Spool records replayed at the start.")
RECOVERY_MISMATCHES = counter("gateway_recovery_mismatches", "Spool records whose replay gave other intervals.")
RECOVERY_UNREADABLE = counter("gateway_recovery_unreadable", "Spool records that could not be read.")
RECOVERY_NAMELESS = counter("gateway_recovery_nameless", "Spool records and devices that nothing names.")
RECOVERY_TORN_BYTES = counter("gateway_recovery_torn_bytes", "Bytes of a torn end that were cut off.")
RECOVERY_DAMAGED_BYTES = counter("gateway_recovery_damaged_bytes", "Damaged bytes of spool segments.")
RECOVERY_CORRUPT_CHECKPOINTS = counter("gateway_recovery_corrupt_checkpoints", "Damaged checkpoints set aside.")


def energy_samples(totals: SampleCounts) -> Iterable[Sample]:
    """What the engine has counted since the start, the records that the start replayed included."""
    yield SETTLEMENT_ROWS_COUNTED.sample(totals.rows)
    yield SETTLEMENT_ROWS_NEW.sample(totals.new)
    yield SETTLEMENT_MALFORMED.sample(totals.malformed)
    yield DUPLICATES.sample(totals.duplicates)
    yield TOO_OLD.sample(totals.too_old)
    yield SEQUENCE_GAPS.sample(totals.gaps)
    yield GAPS_GIVEN_UP.sample(totals.gaps_given_up)
    yield LATE_ROWS.sample(totals.late_rows)
    yield LATE_WH.sample(totals.late_wh)
    yield LOST_ROWS.sample(totals.lost_rows)
    yield LOST_WH.sample(totals.lost_wh)
    yield INTERVAL_RECORDS_MADE.sample(totals.records)
    yield INTERVAL_REVISIONS.sample(totals.revisions)
    yield INTERVAL_REPAIRS.sample(totals.repairs)
    yield TIME_REPLACED.sample(totals.time_replaced)
    yield TIME_CORRECTED.sample(totals.time_corrected)
    yield TIME_DOUBTED.sample(totals.time_doubted)
    yield ENERGY_RESETS.sample(totals.counter_resets)
    yield ENERGY_OUTLIERS.sample(totals.outliers)
    yield ENERGY_ROLLOVERS.sample(totals.rollovers)
    yield ENERGY_JUMPS.sample(totals.jumps)
    yield ENERGY_JUMP_WH.sample(totals.jump_wh)
    yield ENERGY_POWERS_REFUSED.sample(totals.power_refused)
    yield ENERGY_SILENCES.sample(totals.counter_gaps)
    yield ENERGY_SPREAD_WH.sample(totals.spread_wh)
    yield ENERGY_UNATTRIBUTED_WH.sample(totals.unattributed_wh)
    yield ENERGY_SPANS_REFUSED.sample(totals.spans_refused)
    yield ENERGY_SPANS_UNUSED.sample(totals.spans_beside_counter)
    yield ENERGY_COMPARISONS.sample(totals.days_compared)
    yield ENERGY_DRIFTS.sample(totals.days_drifted)
    yield ENERGY_DRIFT_WH.sample(totals.drift_wh)


def spool_samples(spool: Spool) -> Iterable[Sample]:
    """What is durable, what waits, and what was set aside."""
    stats = spool.stats
    yield SPOOL_RECORDS.sample(stats.records)
    yield SPOOL_WRITTEN_BYTES.sample(stats.bytes)
    yield SPOOL_COMMITS.sample(stats.commits)
    yield SPOOL_FAILURES.sample(stats.failures)
    yield SPOOL_DROPPED_SEGMENTS.sample(stats.dropped_segments)
    yield SPOOL_CORRUPT_SEGMENTS.sample(stats.corrupt_segments)
    yield SPOOL_SEGMENTS.sample(stats.segments)
    yield SPOOL_SEGMENT_BYTES.sample(stats.segment_bytes)
    yield SPOOL_UNCOUNTED_BYTES.sample(stats.uncounted_bytes)
    yield SPOOL_QUEUE_BYTES.sample(spool.queued_bytes)
    yield SPOOL_FAILING.sample(int(bool(stats.failing)))


def recovery_samples(stats: RecoveryStats, corrupt_checkpoints: int) -> Iterable[Sample]:
    """What the start met in checkpoints and spool."""
    yield RECOVERY_REPLAYED.sample(stats.replayed)
    yield RECOVERY_MISMATCHES.sample(stats.mismatches)
    yield RECOVERY_UNREADABLE.sample(stats.unreadable)
    yield RECOVERY_NAMELESS.sample(stats.nameless)
    yield RECOVERY_TORN_BYTES.sample(stats.torn_bytes)
    yield RECOVERY_DAMAGED_BYTES.sample(stats.damaged_bytes)
    yield RECOVERY_CORRUPT_CHECKPOINTS.sample(corrupt_checkpoints)
