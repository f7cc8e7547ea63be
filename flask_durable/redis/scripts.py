"""Lua scripts of a folder: read from their files once, called by digest.

All are read together, when a process first needs the state server. Most of them serve
retries, failures and drains: a process that read each at its first use would look for
it in trouble. By then its release may be removed or replaced, or no file descriptor be
left.
"""

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

_WORD = re.compile(r"\w+")


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
def all_scripts(package: str) -> dict[str, Script]:
    """Return all scripts of the folder ``lua`` of *package*, by name.

    :raises OSError: A file cannot be read.
    """
    texts = read_folder(package)
    definitions = _DEFINITION.findall(_COMMENT.sub("", texts.pop("common")))
    return {name: _script(name, text, definitions) for name, text in texts.items()}


def load(package: str, name: str) -> Script:
    """Return the script *name* of *package*."""
    return all_scripts(package)[name]


def read_folder(package: str) -> dict[str, str]:
    """Return the texts of all files in the ``lua`` folder of *package*, by name."""
    files = (resources.files(package) / "lua").iterdir()
    return {
        file.name.removesuffix(".lua"): file.read_text("utf-8")
        for file in files
        if file.name.endswith(".lua")
    }


def _script(name: str, own: str, definitions: list[tuple[str, str]]) -> Script:
    """Return a script with the shared definitions that it uses before it."""
    flags = ""
    if own.startswith("#!"):  # the server wants it on the first line
        flags, own = own.split("\n", 1)
        flags += "\n"
    source = f"{flags}{_used(definitions, own)}{own}"
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())


def _used(definitions: list[tuple[str, str]], own: str) -> str:
    """Return the definitions that *own* uses, itself or through others.

    The server runs the whole text at each call, and so makes each definition every
    time: for the shortest scripts the unused rest would be a quarter of their time.
    """
    kept: list[str] = []
    words = set(_WORD.findall(_COMMENT.sub("", own)))
    # Backwards, because a definition can only use those before it.
    for definition, name in reversed(definitions):
        if name in words:
            kept.insert(0, definition)
            words.update(_WORD.findall(definition))
    return "".join(kept)
