"""Scheduler puts one HTTP API in front of all your machines."""

__version__ = "0.1.0"
