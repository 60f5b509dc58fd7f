"""Where the samples of the configuration files are, which messages point to."""

from __future__ import annotations

from pathlib import Path

import scheduler

_PACKAGE = Path(scheduler.__file__).parent


def samples() -> Path:
    """Their folder: ``scheduler/etc`` of an installed package, ``etc`` of a checkout."""
    installed = _PACKAGE / "etc"
    return installed if installed.is_dir() else _PACKAGE.parent / "etc"


def sample(program: str) -> Path:
    """The file of ``scheduler`` or ``worker``; every value in it is the default."""
    return samples() / f"{program}.toml"
