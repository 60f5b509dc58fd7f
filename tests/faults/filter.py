"""A filter that outlives its job: prints its whole input at once, some time after the input's end.

Run as ``python -I -S filter.py SECONDS``. Like ``sort``, it prints nothing before its input has ended. A job whose main
process is the writer has ended by then. Standard library only.
"""

from __future__ import annotations

import sys
import time

if __name__ == "__main__":
    everything = sys.stdin.buffer.read()
    time.sleep(float(sys.argv[1]))
    sys.stdout.buffer.write(everything)
