"""Followers of a job's output, and the stream that followers at its live end share."""
