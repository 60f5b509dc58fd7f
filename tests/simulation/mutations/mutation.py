"""One change of the production code that breaks a promise."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

import scheduler

#: The package as it is installed.
PACKAGE = Path(scheduler.__file__).parent


class Outdated(Exception):
    """The code has changed, and the mutation has to be mended."""


@frozen
class Mutation:
    """``old`` stands exactly once in ``file``; ``new`` in its place breaks what rests on it."""

    name: str
    #: What rests on these lines, in a sentence.
    promise: str
    #: Below the package.
    file: str
    old: str
    new: str
    #: Where it is looked for, and the rules that may find it.
    profile: str
    rules: tuple[str, ...]

    @property
    def module(self) -> str:
        """The full name of the module that is changed."""
        return f"scheduler.{self.file.removesuffix('.py').replace('/', '.')}"

    @property
    def path(self) -> Path:
        """The file of that module."""
        return PACKAGE / self.file

    def source(self) -> str:
        """The module with the change; ``Outdated``."""
        source = self.path.read_text(encoding="utf-8")
        found = source.count(self.old)
        if found != 1:
            raise Outdated(f"{self.name}: its text is {found} times in {self.file}: mend the mutation")
        return source.replace(self.old, self.new)
