"""Keeps the id that the scheduler gave this worker in a file, for the next process."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import Logger
from zope.interface import implementer

from scheduler.texts import is_core_id
from scheduler.worker.shim.files import write_file
from scheduler.worker_interfaces import IHeldId


@implementer(IHeldId)
class IdFile:
    """The file of the id. It is written whole or not at all."""

    _log = Logger()

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        try:
            held = self._path.read_text(encoding="utf-8").removesuffix("\n")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            self._log.warn("{file} can't be read, so a new id is asked for: {why}", file=self._path, why=str(error))
            return ""
        if not is_core_id(held):
            self._log.warn("{file} holds no id, so a new one is asked for", file=self._path)
            return ""
        return held

    def write(self, worker_id: str) -> None:
        draft = self._path.with_suffix(".tmp")
        try:
            write_file(str(draft), f"{worker_id}\n".encode())
            draft.replace(self._path)
        except OSError as error:
            self._log.error("{file} can't be written: {why}", file=self._path, why=str(error))
