"""Durable copies of the registry."""
