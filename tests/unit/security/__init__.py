"""Tests of ``scheduler.security``."""
