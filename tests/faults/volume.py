"""A file system in memory that is small enough to be filled."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from tests.faults.run import Skipped


@frozen
class Volume:
    """A file system mounted at ``path``."""

    path: Path

    def fill(self) -> None:
        """Use all free space."""
        with (self.path / "ballast").open("ab") as ballast:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        os.write(ballast.fileno(), bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def empty(self) -> None:
        """Free the used space."""
        (self.path / "ballast").unlink()


@contextlib.contextmanager
def mounted(path: Path, size: str) -> Iterator[Volume]:
    """A file system of that size (as in ``mount -o size=``), until the end."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True, capture_output=True)
    try:
        yield Volume(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)


def possible() -> None:
    """``Skipped`` if no file system can be mounted."""
    try:
        with tempfile.TemporaryDirectory() as folder, mounted(Path(folder), "64k"):
            pass
    except FileNotFoundError:
        raise Skipped("there is no mount") from None
    except subprocess.CalledProcessError as error:
        raise Skipped(f"no tmpfs can be mounted: {error.stderr.decode().strip()}") from None
