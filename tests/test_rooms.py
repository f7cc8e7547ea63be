"""Imports between the parts of the package, as the architecture page allows them."""

from __future__ import annotations

import ast
import functools
import pathlib
import re
import subprocess
import sys
import typing as t

import pytest

from .support.parsing import parsed

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "flask_durable"

#: Rooms that everybody may import; they import only one another.
COMMON = {"common", "errors", "messages"}

#: Rooms that know no framework, also not through what they import.
PURE = ("engine", "functions", "store", "events")
FRAMEWORKS = {"flask", "werkzeug", "click", "boto3", "botocore", "dramatiq"}

#: Where each of these may be imported at all.
HOMES = {
    "flask": {"app.addresses", "cli", "extension", "observe.formats", "web"},
    "dramatiq": {"queue", "worker"},
    "redis": {
        "app.health",
        "app.state",
        "cli",
        "dead_letters",
        "engine",
        "queue",
        "redis",
        "scaler.introspectors",
        "store",
    },
    "sentry_sdk": {"observe.sentry"},
    "sqlalchemy": {"app.body_session", "sql"},
    "urllib3": {"clients.http"},
    "prometheus_client": set(),
}

#: Modules at the top level of the package, ``__init__`` included.
MAX_TOP_LEVEL = 8

MAX_LINES = 500

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


class _Imports(ast.NodeVisitor):
    """Collects the imports of a module, apart those that only a type checker sees."""

    def __init__(self) -> None:
        self.run_time: list[ast.Import | ast.ImportFrom] = []
        self.typing: list[ast.Import | ast.ImportFrom] = []
        self._found = self.run_time

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            self._found = self.typing
        self.generic_visit(node)
        self._found = self.run_time

    def visit_Import(self, node: ast.Import) -> None:
        self._found.append(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._found.append(node)


@functools.cache
def _visited(module: str) -> _Imports:
    visitor = _Imports()
    visitor.visit(parsed(MODULES[module].read_text("utf-8")))
    return visitor


@functools.cache
def imports_of(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return what *module* imports at run time: of the package, and of others."""
    return _split(module, _visited(module).run_time)


@functools.cache
def all_imports_of(module: str) -> frozenset[str]:
    """Return what *module* imports of the package, for the type checker too."""
    visited = _visited(module)
    return _split(module, [*visited.run_time, *visited.typing])[0]


def _split(
    module: str, nodes: t.Iterable[ast.Import | ast.ImportFrom]
) -> tuple[frozenset[str], frozenset[str]]:
    own: set[str] = set()
    others: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            others.update(alias.name.partition(".")[0] for alias in node.names)
        elif node.level:
            own.update(_relative(module, node))
        else:
            others.add(t.cast(str, node.module).partition(".")[0])
    return frozenset(own), frozenset(others)


def _relative(module: str, node: ast.ImportFrom) -> t.Iterator[str]:
    folder = module.split(".")[: -node.level]
    base = [*folder, *(node.module or "").split(".")] if node.module else folder
    for alias in node.names:
        name = ".".join([*base, alias.name])
        yield name if name in MODULES else _module(".".join(base))


def _module(name: str) -> str:
    return name if name in MODULES else f"{name}.__init__".removeprefix(".")


def room_of(module: str) -> str:
    return module.partition(".")[0]


def reachable(module: str) -> set[str]:
    """Return *module* and every module that importing it may import, now or later."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        found = waiting.pop()
        # The package's own __init__ is the user's choice to import, not the room's.
        if found not in seen and found != "__init__":
            seen.add(found)
            waiting += imports_of(found)[0]
    return seen


def stated() -> dict[str, set[str]]:
    """Return the table of the architecture page: a room, and what it may import."""
    text = (ROOT / "docs" / "architecture.rst").read_text("utf-8")
    table = text.split(".. rooms-begin")[1].split(".. rooms-end")[0]
    rows = re.findall(r"\* - (\w+)\n +- (.+)", table)
    found = {room: set(re.findall(r"\w+", allowed)) for room, allowed in rows}
    found.pop("room")
    return found


def actual() -> dict[str, set[str]]:
    """Return which room imports which, without what everybody may import."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        room = room_of(module)
        if room == "__init__" or room in COMMON:
            continue
        rooms = {room_of(name) for name in all_imports_of(module)}
        found.setdefault(room, set()).update(rooms - COMMON - {room})
    return found


def test_each_room_imports_what_the_architecture_page_says_and_nothing_else() -> None:
    says = stated()
    found = {room: imported for room, imported in actual().items() if imported}
    assert found == {room: allowed for room, allowed in says.items() if allowed}
    assert says.keys() <= {room_of(module) for module in MODULES}


def test_no_import_runs_up() -> None:
    """The table lists the rooms from the top down."""
    order = [*stated(), *COMMON]
    for room, imported in actual().items():
        above = set(order[: order.index(room)])
        assert not imported & above, room


def test_the_top_level_has_few_modules() -> None:
    top = [name for name, path in MODULES.items() if path.parent == PACKAGE]
    assert len(top) <= MAX_TOP_LEVEL, top


def test_what_everybody_may_import_imports_only_one_another() -> None:
    for module in MODULES:
        if room_of(module) not in COMMON:
            continue
        assert {room_of(name) for name in all_imports_of(module)} <= COMMON, module


@pytest.mark.parametrize("room", PURE)
def test_a_pure_room_knows_no_framework(room: str) -> None:
    for module in MODULES:
        if room_of(module) == room:
            for reached in reachable(module):
                assert not imports_of(reached)[1] & FRAMEWORKS, (module, reached)


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_in_its_rooms_only(library: str) -> None:
    for module in MODULES:
        if library in imports_of(module)[1]:
            homes = HOMES[library]
            inside = [home for home in homes if f"{module}.".startswith(f"{home}.")]
            assert inside, module


def test_boto3_is_named_by_one_module_and_imported_by_none() -> None:
    for module, path in MODULES.items():
        assert not imports_of(module)[1] & {"boto3", "botocore"}, module
        asks = 'import_module("boto' in path.read_text("utf-8")
        assert asks == (module == "clients.aws"), module


def test_no_module_is_longer_than_five_hundred_lines() -> None:
    lengths = {
        name: len(path.read_text("utf-8").splitlines())
        for name, path in MODULES.items()
    }
    assert {n: length for n, length in lengths.items() if length > MAX_LINES} == {}


def test_importing_the_package_imports_no_queue_and_no_extra() -> None:
    code = (
        "import sys, flask_durable; names = ['boto3', 'botocore', 'sentry_sdk', "
        "'cryptography.fernet', 'statsd', 'prometheus_client', 'moto', 'dramatiq', "
        "'sqlalchemy', "
        "'dramatiq.cli', 'urllib3']; print([n for n in names if n in sys.modules])"
    )
    assert _python(code) == "[]"


def test_the_command_line_imports_no_queue_before_it_is_needed() -> None:
    code = (
        "import sys, flask_durable.cli; names = ['boto3', 'dramatiq', 'moto', "
        "'redis', 'pydantic']; print([n for n in names if n in sys.modules])"
    )
    assert set(ast.literal_eval(_python(code))) <= {"redis", "pydantic"}


def test_every_module_can_be_imported() -> None:
    names = [
        f"flask_durable.{module}".removesuffix(".__init__")
        for module in MODULES
        if module != "common.guard"  # a program of its own
    ]
    code = f"import importlib; [importlib.import_module(n) for n in {names!r}]"
    assert _python(code) == ""


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:flask_durable", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
