"""What a command that waits says meanwhile, on stderr."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

from scheduler.cli.wording import printable, span

#: Seconds between two updates of the line.
UPDATE_INTERVAL = 0.5

_ERASE = "\r\x1b[K"


def write_stderr(text: str) -> None:
    """To the descriptor itself: a signal handler may interrupt ``sys.stderr`` in the middle of a write."""
    try:
        os.write(2, text.encode("utf-8", "replace"))
    except OSError:
        return  # a closed pipe, or a terminal that is gone: nobody is there to be told


def terminal_width() -> int | None:
    """Columns of the terminal that stderr is; ``None`` if it is none, or one on which no line can be drawn anew."""
    if os.environ.get("TERM") == "dumb":
        return None
    try:
        return os.get_terminal_size(2).columns or 80 if os.isatty(2) else None
    except OSError:
        return None


class Status:
    """Notes, and at most one line that says what is being waited for, once that has taken some time.

    On a terminal that line is updated in place with the time that has passed, and vanishes when the wait is over.
    Elsewhere it is written once for each wait.
    """

    def __init__(
        self,
        write: Callable[[str], None] = write_stderr,
        width: Callable[[], int | None] = terminal_width,
        clock: Callable[[], float] = time.monotonic,
        updates: bool = True,
    ) -> None:
        """``width``: of the terminal, ``None`` where there is none. ``clock`` gives seconds.

        ``updates``: have a thread call ``update``.
        """
        self._write = write
        self._width = width
        self._clock = clock
        # A signal handler may note something while this thread has the lock.
        self._lock = threading.RLock()
        self._text = ""
        #: Since when something is waited for, and when that is shown.
        self._since: float | None = None
        self._due = 0.0
        self._told = False
        self._drawn = False
        self._updates = updates
        self._waiting = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Status:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done()
        self._over.set()
        self._waiting.set()

    @property
    def on_terminal(self) -> bool:
        """Whether somebody may be looking at it."""
        return self._width() is not None

    def note(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._erase()
            self._write(f"schedctl: {printable(text)}\n")
            if self._since is not None and self._told:
                self._draw()

    def waiting(self, text: str, after: float, since: float) -> None:
        """What is waited for since then, a clause, to be shown if it takes longer than ``after`` seconds.

        What began at the same time is the same wait, in other words.
        """
        with self._lock:
            if self._since != since:
                self._since = since
                self._due = since + after
                self._told = False
            self.reword(text)
        self._waiting.set()
        if self._updates and self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def reword(self, text: str) -> None:
        """The same wait, in other words; nothing if there is none."""
        with self._lock:
            self._text = printable(text)
            if self._drawn:
                self._draw()

    def done(self) -> bool:
        """The wait is over; whether it was shown."""
        self._waiting.clear()
        with self._lock:
            self._erase()
            told = self._since is not None and self._told
            self._since = None
            return told

    def update(self) -> None:
        """Show what is waited for, if it is due, and for how long by now."""
        with self._lock:
            if self._since is None or self._clock() < self._due:
                return
            if self.on_terminal:
                self._draw()
            elif not self._told:
                self._write(f"schedctl: {self._text} ({span(self._clock() - self._since)})\n")
            self._told = True

    def _run(self) -> None:
        while not self._over.wait(UPDATE_INTERVAL):
            self._waiting.wait()
            self.update()

    def _draw(self) -> None:
        width = self._width()
        if self._since is None or width is None:
            return
        passed = f" ({span(self._clock() - self._since)})"
        room = width - 1 - len(passed)
        text = f"schedctl: {self._text}"
        self._write(f"{_ERASE}{text if len(text) <= room else text[: max(0, room - 1)] + '…'}{passed}")
        self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            self._drawn = False
            self._write(_ERASE)
