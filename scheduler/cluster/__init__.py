"""The scheduler's knowledge of workers and jobs, and what it decides: no grpc, no klein, no SQL."""
