"""Ingests readings, records intervals, answers queries and reports completeness."""
