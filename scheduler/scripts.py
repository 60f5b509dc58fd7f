"""The first line of a script, from which the kernel takes its interpreter."""

from __future__ import annotations

import codecs
import re

#: Matches the interpreter, and the rest of the line.
INTERPRETER = re.compile(rb"#![ \t]*([^ \t\n\0]+)([^\n]*)")

#: Bytes of a script's first line that the kernel reads.
LINE_MAX_BYTES = 256


def script_problem(script: bytes) -> str | None:
    """Why no kernel can run this script by its first line; ``None`` if one may be able to."""
    if script.startswith(codecs.BOM_UTF8):
        return (
            "begins with a byte order mark (BOM), so the kernel finds no #! line; save it as UTF-8 without a byte "
            "order mark"
        )
    if INTERPRETER.match(script[:LINE_MAX_BYTES]) is None:
        return "must begin with a #! line that names its interpreter, like #!/bin/sh"
    if script.partition(b"\n")[0].endswith(b"\r"):
        return (
            "has a #! line that ends in a carriage return (CR LF), which the kernel takes for a part of it; save it "
            "with line ends of Unix (LF)"
        )
    return None
