"""Metrics of the telemetry path: every settlement message and its energy, the spool, and what a start recovered."""

from collections.abc import Iterable

from gateway.domain.intervals.types import SampleCounts
from gateway.observability.metrics import Sample
from gateway.storage.recovery import RecoveryStats
from gateway.storage.spool.spool import Spool


def energy_samples(totals: SampleCounts) -> Iterable[Sample]:
    """What the engine has counted since the start, the records that the start replayed included."""
    for name, text, value in (
        ("gateway_settlement_rows_counted", "Settlement messages counted, replayed ones too.", totals.rows),
        ("gateway_settlement_rows_new", "Settlement messages that were counted as new.", totals.new),
        ("gateway_settlement_malformed", "Settlement messages with an impossible boot or sequence.", totals.malformed),
        ("gateway_duplicates", "Settlement messages that had been counted before.", totals.duplicates),
        ("gateway_too_old", "Settlement messages too old to be told from duplicates.", totals.too_old),
        ("gateway_sequence_gaps", "Settlement messages that were never received.", totals.gaps),
        ("gateway_late_rows", "Settlement messages for intervals older than the newest two.", totals.late_rows),
        ("gateway_late_wh", "Energy of messages for intervals older than the newest two.", totals.late_wh),
        ("gateway_lost_rows", "Settlement messages that belong to no interval any more.", totals.lost_rows),
        ("gateway_lost_wh", "Energy of messages that belong to no interval any more.", totals.lost_wh),
        ("gateway_interval_records_made", "Records of intervals made, revisions included.", totals.records),
        ("gateway_interval_revisions", "Records of intervals that replace an earlier one.", totals.revisions),
        ("gateway_interval_repairs", "Intervals made again from late data.", totals.repairs),
        ("gateway_time_replaced", "Settlement messages that go by the time of receipt.", totals.time_replaced),
        ("gateway_energy_resets", "Energy counters that began anew.", totals.counter_resets),
        ("gateway_energy_rollovers", "Energy counters that went past their end.", totals.rollovers),
        ("gateway_energy_jumps", "Energies beyond what a battery could move, left out.", totals.jumps),
        ("gateway_energy_jump_wh", "Energy beyond what a battery could move, left out.", totals.jump_wh),
        ("gateway_energy_powers_refused", "Powers beyond a battery's rating, made unknown.", totals.power_refused),
        ("gateway_energy_silences", "Silences longer than an interval, by counter.", totals.counter_gaps),
        ("gateway_energy_spread_wh", "Energy of silences that was shared by time.", totals.spread_wh),
        ("gateway_energy_unattributed_wh", "Energy that no interval has.", totals.unattributed_wh),
        ("gateway_energy_spans_refused", "Energies of an impossible span or sign, left out.", totals.spans_refused),
        (
            "gateway_energy_spans_beside_counter",
            "Energies without a counter of devices that have one, left to the counter.",
            totals.spans_beside_counter,
        ),
        ("gateway_energy_comparisons", "Days of integration compared with a coarse counter.", totals.days_compared),
        ("gateway_energy_drifts", "Days on which integration was off its counter.", totals.days_drifted),
        ("gateway_energy_drift_wh", "Energy by which integration was off its counter.", totals.drift_wh),
    ):
        yield Sample(name=name, help=text, value=value, kind="counter")


def spool_samples(spool: Spool) -> Iterable[Sample]:
    """What is durable, what waits, and what was set aside."""
    stats = spool.stats
    for name, text, value in (
        ("gateway_spool_records", "Records that became durable.", stats.records),
        ("gateway_spool_written_bytes", "Bytes that became durable.", stats.bytes),
        ("gateway_spool_commits", "Commits of the spool.", stats.commits),
        ("gateway_spool_failures", "Failed commits of the spool.", stats.failures),
        ("gateway_spool_dropped_segments", "Segments that were needed no more.", stats.dropped_segments),
        ("gateway_spool_corrupt_segments", "Damaged segments that were set aside.", stats.corrupt_segments),
    ):
        yield Sample(name=name, help=text, value=value, kind="counter")
    for name, text, level in (
        ("gateway_spool_segments", "Spool segments.", stats.segments),
        ("gateway_spool_segment_bytes", "Bytes in spool segments.", stats.segment_bytes),
        ("gateway_spool_uncounted_bytes", "Bytes that the spool's limit leaves out.", stats.uncounted_bytes),
        ("gateway_spool_queue_bytes", "Bytes that are not durable yet.", spool.queued_bytes),
        ("gateway_spool_failing", "1 while nothing becomes durable.", int(bool(stats.failing))),
    ):
        yield Sample(name=name, help=text, value=float(level))


def recovery_samples(stats: RecoveryStats, corrupt_checkpoints: int) -> Iterable[Sample]:
    """What the start met in checkpoints and spool."""
    for name, text, value in (
        ("gateway_recovery_replayed", "Spool records replayed at the start.", stats.replayed),
        ("gateway_recovery_mismatches", "Spool records whose replay gave other intervals.", stats.mismatches),
        ("gateway_recovery_unreadable", "Spool records that could not be read.", stats.unreadable),
        ("gateway_recovery_nameless", "Spool records and devices that nothing names.", stats.nameless),
        ("gateway_recovery_torn_bytes", "Bytes of a torn end that were cut off.", stats.torn_bytes),
        ("gateway_recovery_damaged_bytes", "Damaged bytes of spool segments.", stats.damaged_bytes),
        ("gateway_recovery_corrupt_checkpoints", "Damaged checkpoints set aside.", corrupt_checkpoints),
    ):
        yield Sample(name=name, help=text, value=value, kind="counter")
