"""Messages of a waiting command, on stderr."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from attrs import define, field

from scheduler.cli.wording import printable, span

#: Seconds between two updates of the line about the present wait.
UPDATE_INTERVAL = 0.5

_ERASE = "\r\x1b[K"


def write_stderr(text: str) -> None:
    """Write to the descriptor of stderr. A signal handler may interrupt ``sys.stderr`` in the middle of a write."""
    try:
        os.write(2, text.encode("utf-8", "replace"))
    except OSError:
        return  # a closed pipe, or a terminal that is gone: nobody reads it


def terminal_width() -> int | None:
    """The columns of the terminal on stderr; ``None`` if stderr is no terminal, or the terminal can't redraw a line."""
    if os.environ.get("TERM") == "dumb":
        return None
    try:
        return os.get_terminal_size(2).columns or 80 if os.isatty(2) else None
    except OSError:
        return None


@define(eq=False)
class Status:
    """Notes, and at most one line about the present wait, which appears once the wait has taken some time.

    On a terminal the line is updated in place with the elapsed time, and disappears when the wait is over. Otherwise it
    is written once for each wait.
    """

    _write: Callable[[str], None] = write_stderr
    #: Columns of the terminal; ``None`` without one.
    _width: Callable[[], int | None] = terminal_width
    _clock: Callable[[], float] = time.monotonic
    #: Run a thread that calls ``update``.
    _updates: bool = True
    # A signal handler may write a note while this same thread holds the lock.
    _lock: Any = field(factory=threading.RLock)
    _text: str = ""
    #: When the present wait began, and when it is to be shown.
    _since: float | None = None
    _due: float = 0.0
    _told: bool = False
    _drawn: bool = False
    _waiting: threading.Event = field(factory=threading.Event)
    _over: threading.Event = field(factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Status:
        return self

    def __exit__(self, *_: object) -> None:
        self.done()
        self._over.set()
        self._waiting.set()

    @property
    def on_terminal(self) -> bool:
        return self._width() is not None

    def note(self, text: str) -> None:
        """Print a line that stays on the screen."""
        with self._lock:
            self._erase()
            self._write(f"schedctl: {printable(text)}\n")
            if self._since is not None and self._told:
                self._draw()

    def waiting(self, text: str, after: float, since: float) -> None:
        """Describe the present wait by a clause. It is shown if the wait takes longer than ``after`` seconds.

        A wait with the same ``since`` as before is the same wait with another description.
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
        """Change the description of the present wait, if there is one."""
        with self._lock:
            self._text = printable(text)
            if self._drawn:
                self._draw()

    def done(self) -> bool:
        """End the present wait. Returns whether it was shown."""
        self._waiting.clear()
        with self._lock:
            self._erase()
            told = self._since is not None and self._told
            self._since = None
            return told

    def update(self) -> None:
        """Show or update the present wait if it is due."""
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
