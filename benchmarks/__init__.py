"""Measures the cost of Scheduler with real daemons: ``make bench``."""
