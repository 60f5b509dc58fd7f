"""Tests of ``schedctl`` without a scheduler."""
