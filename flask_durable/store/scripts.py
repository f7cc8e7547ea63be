"""The Lua scripts of this folder: read from their files once, called by digest."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from importlib import resources

_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)

#: A ``local`` at the start of a line, up to the next one, and its name.
_DEFINITION = re.compile(
    r"^(local (?:function )?(\w+).*?)(?=^local |\Z)", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Script:
    """A script as it is loaded into the server.

    :param name: The file's name without its ending.
    :param source: The whole text.
    :param digest: The SHA-1 of the text, by which the server knows it.
    """

    name: str
    source: str
    digest: str


@functools.cache
def load(name: str) -> Script:
    """Return the script *name*, with the shared definitions that it uses before it."""
    folder = resources.files(__package__) / "lua"
    common = (folder / "common.lua").read_text("utf-8")
    own = (folder / f"{name}.lua").read_text("utf-8")
    flags = ""
    if own.startswith("#!"):  # the server wants it on the first line
        flags, own = own.split("\n", 1)
        flags += "\n"
    source = f"{flags}{_used(common, own)}{own}"
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())


def _used(common: str, own: str) -> str:
    """Return the definitions of *common* that *own* uses, itself or through others.

    The server runs the whole text at each call, and so makes each definition every
    time: for the shortest scripts the unused rest would be a quarter of their time.
    """
    kept: list[str] = []
    text = _COMMENT.sub("", own)
    # Backwards, because a definition can only use those before it.
    for definition, name in reversed(_DEFINITION.findall(_COMMENT.sub("", common))):
        if re.search(rf"\b{name}\b", text):
            kept.insert(0, definition)
            text += definition
    return "".join(kept)
