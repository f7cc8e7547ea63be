"""The Lua scripts of this room: read from their files once, called by their digest."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Script:
    """A script as it is loaded into the server.

    :param name: The file's name without its ending.
    :param source: The whole text.
    :param digest: SHA-1 of the text, which is how the server knows it.
    """

    name: str
    source: str
    digest: str


@functools.cache
def load(name: str) -> Script:
    """Return the script *name*, with what all scripts share put before it."""
    folder = resources.files(__package__) / "lua"
    common = (folder / "common.lua").read_text("utf-8")
    own = (folder / f"{name}.lua").read_text("utf-8")
    flags = ""
    if own.startswith("#!"):  # the server wants it on the first line
        flags, own = own.split("\n", 1)
        flags += "\n"
    source = f"{flags}{common}\n{own}"
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())
