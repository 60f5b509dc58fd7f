"""The worker: the process on each machine that runs jobs, keeps their spools and talks to the scheduler."""
