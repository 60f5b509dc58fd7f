"""What can go wrong. Each fault is a value that is planned before the run, and heals after its time."""
