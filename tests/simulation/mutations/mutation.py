"""A change of the production code that breaks a promise."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

import scheduler

#: The installed package.
PACKAGE = Path(scheduler.__file__).parent


class Outdated(Exception):
    """The code has changed, so the mutation must be adapted."""


@frozen
class Mutation:
    """``old`` occurs exactly once in ``file``; replacing it with ``new`` breaks the promise."""

    name: str
    #: The promise that these lines keep, in a sentence.
    promise: str
    #: Relative to the package.
    file: str
    old: str
    new: str
    #: The profile whose seeds are searched, and the rules that may find the mutation.
    profile: str
    rules: tuple[str, ...]

    @property
    def module(self) -> str:
        """The full name of the changed module."""
        return f"scheduler.{self.file.removesuffix('.py').replace('/', '.')}"

    @property
    def path(self) -> Path:
        """The file of that module."""
        return PACKAGE / self.file

    def source(self) -> str:
        """The source of the changed module; ``Outdated``."""
        source = self.path.read_text(encoding="utf-8")
        found = source.count(self.old)
        if found != 1:
            raise Outdated(f"{self.name}: its text is {found} times in {self.file}: mend the mutation")
        return source.replace(self.old, self.new)
