"""Doubles of the parts behind the interfaces: healthy by default, with faults on request of a test."""
