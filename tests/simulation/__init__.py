"""A simulation of the whole system: virtual time, one seed, and every fault at once."""
