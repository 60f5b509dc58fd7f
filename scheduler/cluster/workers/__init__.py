"""Registration, departure and reachability of workers, and agreement with them about jobs."""
