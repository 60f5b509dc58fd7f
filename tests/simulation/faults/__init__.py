"""The faults of a run. Each is a value that is planned before the run, and heals after its time."""
