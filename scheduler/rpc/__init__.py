"""gRPC, both services and both clients: the only importer of grpc and of the generated code."""

import os

# With fork support on, grpcio restarts its pollers in every forked child, and children die of it
# (https://github.com/grpc/grpc/issues/43055). Nothing here forks after grpc is up. Must precede its import.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# It writes to stderr past any log, of what its callers are told anyway.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
