"""What Scheduler costs, measured on the real daemons: ``make bench``."""
