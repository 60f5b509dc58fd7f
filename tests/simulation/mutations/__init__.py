"""Proof that the simulator works: it must find production code in which one promise is broken."""
