"""The common parts of our twistd processes. They know nothing of jobs."""
