"""What runs on each machine: jobs, their spools, and the membership in the cluster."""
