"""The processes between the worker and its jobs, and the spool they write: standard library only."""
