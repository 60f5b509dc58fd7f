"""A filter that outlives the job it belongs to: prints what it reads, all at once, a while after the end of that.

Run as ``python -I -S filter.py SECONDS``. As ``sort`` does, it prints nothing
before its input has ended; a job whose main process is the writer has ended by
then. Standard library only.
"""

from __future__ import annotations

import sys
import time

if __name__ == "__main__":
    everything = sys.stdin.buffer.read()
    time.sleep(float(sys.argv[1]))
    sys.stdout.buffer.write(everything)
