"""gRPC: both services and both clients. Only this package imports grpc and the generated code."""

import os

# With fork support on, grpcio restarts its pollers in every forked child, and children die of it
# (https://github.com/grpc/grpc/issues/43055). This process never forks once grpc is in use. Set before grpc is
# imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# grpcio would write to stderr, beside the log, about failures that callers are told anyway.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
