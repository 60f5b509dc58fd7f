"""HTTP: thin routes over ``IScheduler``."""
