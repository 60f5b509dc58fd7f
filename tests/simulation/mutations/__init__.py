"""Proof that the simulation finds what it is for: production code with one promise broken has to be found out."""
