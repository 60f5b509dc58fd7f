"""The common parts of our twistd processes. It knows nothing of jobs."""
