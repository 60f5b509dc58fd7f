"""Finds the sample configuration files, to which messages refer."""

from __future__ import annotations

from pathlib import Path

import scheduler

_PACKAGE = Path(scheduler.__file__).parent


def samples() -> Path:
    """The folder of the samples: ``scheduler/etc`` of an installed package, ``etc`` of a checkout."""
    installed = _PACKAGE / "etc"
    return installed if installed.is_dir() else _PACKAGE.parent / "etc"


def sample(program: str) -> Path:
    """The sample for ``scheduler`` or ``worker``. Every value in it is the default."""
    return samples() / f"{program}.toml"
