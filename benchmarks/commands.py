"""Measures how long a user waits at a prompt: the start of ``schedctl``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.rows import Row

#: Milliseconds that ``schedctl --help`` may take.
AIM = 150


def schedctl_help(quick: bool) -> Iterator[Row]:
    """``schedctl --help``, measured in turns with an interpreter that does nothing."""
    rounds = 5 if quick else 40
    command = shutil.which("schedctl", path=str(Path(sys.executable).parent))
    if command is None:
        yield Row("`schedctl --help`", "skipped", "", "schedctl is not installed here")
        return
    taken: dict[str, list[float]] = {"help": [], "nothing": []}
    for _ in range(rounds):
        taken["help"].append(_seconds(command, "--help"))
        taken["nothing"].append(_seconds(sys.executable, "-c", "pass"))
    own, nothing = median(taken["help"]), median(taken["nothing"])
    figure = f"p50 {own * 1000:.0f} ms, longest {max(taken['help']) * 1000:.0f} ms"
    note = f"{own / nothing:.1f} of `python -c pass` ({nothing * 1000:.0f} ms); aim {AIM} ms"
    yield Row("`schedctl --help`", figure, str(rounds), note)


def _seconds(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began
