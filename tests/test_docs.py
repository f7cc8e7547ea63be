"""The documentation says what the code does: names, defaults, limits, examples."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import re
import subprocess
import sys
import textwrap
import typing as t

import click
import pytest

from flask_durable import errors as failure
from flask_durable import messages as envelope
from flask_durable import RunStatus
from flask_durable.cli import durable_cli
from flask_durable.common import durations
from flask_durable.config import settings as config
from flask_durable.config.settings import Settings
from flask_durable.events import model as names
from flask_durable.functions import checks
from flask_durable.functions import options
from flask_durable.queue import transport
from flask_durable.queue.redis_streams import transport as redis_streams
from flask_durable.queue.sqs import queues as sqs_queues
from flask_durable.security import keys
from flask_durable.security import signatures
from flask_durable.serialization import refusal
from flask_durable.store import run_store
from flask_durable.web import blueprint
from flask_durable.web import events as endpoint
from flask_durable.web import http

from .support.parsing import parsed

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PACKAGE = ROOT / "flask_durable"


def page(name: str) -> str:
    return (DOCS / f"{name}.rst").read_text("utf-8")


def rows(text: str) -> list[list[str]]:
    """Return the rows of all list tables in *text*, each a list of its cells."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if match := re.match(r" +\* - ?(.*)", line):
            found.append([match[1]])
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        elif inside and (match := re.match(r"     - ?(.*)", line)):
            found[-1].append(match[1])
        elif inside and line.startswith("       "):
            found[-1][-1] += " " + line.strip()
    return [[cell.strip() for cell in row] for row in found]


def code(name: str, containing: str) -> str:
    """Return the literal block of a page that has *containing* in it."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", page(name))
    (block,) = [block for block in blocks if containing in block]
    return textwrap.dedent(block)


def public_names() -> set[str]:
    tree = parsed((PACKAGE / "__init__.py").read_text("utf-8"))
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


# -- Configuration ----------------------------------------------------------------


def documented_settings() -> dict[str, str]:
    return {
        row[0].strip("`"): row[2].strip("`")
        for row in rows(page("configuration"))
        if row[0].startswith("``DURABLE_")
    }


def test_every_key_is_documented_and_every_documented_key_exists() -> None:
    expected = {config.PREFIX + field.upper() for field in Settings.model_fields}
    assert documented_settings().keys() == expected


@pytest.mark.parametrize("field", Settings.model_fields)
def test_a_documented_default_is_the_default(field: str) -> None:
    text = documented_settings()[config.PREFIX + field.upper()]
    default = getattr(Settings.model_validate({}), field)
    if text == "none":
        assert default in (None, (), {})
    else:
        assert getattr(Settings.model_validate({field: text}), field) == default


def test_no_page_names_a_key_that_does_not_exist() -> None:
    known = documented_settings().keys()
    for path in [*DOCS.glob("*.rst"), ROOT / "README.md"]:
        for name in re.findall(r"\bDURABLE_[A-Z_]+", path.read_text("utf-8")):
            command = re.fullmatch(r"DURABLE_(\w+?)_.*", name)
            of_command = command and command[1].lower() in config.COMMANDS
            assert name in known or of_command or name == "DURABLE_", (path.name, name)


# -- Command line -----------------------------------------------------------------


def commands() -> dict[str, click.Command]:
    """Return every command by what is typed for it."""
    found: dict[str, click.Command] = {}

    def walk(group: click.Group, prefix: str) -> None:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                walk(command, f"{prefix} {name}")
            if not isinstance(command, click.Group) or command.invoke_without_command:
                found[f"{prefix} {name}"] = command

    walk(durable_cli, "flask durable")
    return found


def documented_options() -> dict[str, set[str]]:
    """Return the options of each documented command."""
    found: dict[str, set[str]] = {}
    for line in page("cli").splitlines():
        if match := re.match(r"\.\. program:: (.+)", line):
            options = found[match[1]] = set()
        elif line.startswith(".. option::"):
            options |= set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line))
    return found


def test_every_command_is_documented_and_every_documented_command_exists() -> None:
    assert documented_options().keys() == commands().keys()


@pytest.mark.parametrize("name", commands())
def test_every_option_is_documented_and_every_documented_option_exists(
    name: str,
) -> None:
    options = {
        spelling
        for param in commands()[name].params
        if isinstance(param, click.Option)
        for spelling in (*param.opts, *param.secondary_opts)
    }
    assert documented_options()[name] == options


@pytest.mark.parametrize("name", commands())
def test_a_command_is_shown_with_the_arguments_that_it_takes(name: str) -> None:
    command = commands()[name]
    # Not those of a group, which would add its own commands.
    pieces = click.Command.collect_usage_pieces(command, click.Context(command))
    arguments = [piece for piece in pieces if piece != "[OPTIONS]"]
    assert f"``{' '.join([name, *arguments])}``:" in page("cli")


@pytest.mark.parametrize("path", [*DOCS.glob("*.rst"), ROOT / "README.md"])
def test_no_page_shows_a_command_that_does_not_exist(path: pathlib.Path) -> None:
    known = {words.split()[2] for words in commands()}
    shown = re.findall(
        r"flask(?: --app \S+)? durable ([a-z]+)", path.read_text("utf-8")
    )
    assert set(shown) <= known | {"commands"}


# -- Names ------------------------------------------------------------------------


def test_every_public_name_is_in_the_api_reference_and_nothing_else() -> None:
    directives = re.findall(
        r"\.\. auto(?:class|data|exception):: ([\w.]+)", page("api")
    )
    assert {name for name in directives if "." not in name} == public_names()


def test_every_member_named_in_the_api_reference_exists() -> None:
    import flask_durable

    for name, block in re.findall(
        r"\.\. autoclass:: (\w+)(?:\(.*\))?\n   :members: (.+)", page("api")
    ):
        cls = getattr(flask_durable, name)
        for member in block.split(", "):
            declared = member in getattr(cls, "__annotations__", {})
            assert declared or hasattr(cls, member), (name, member)


REFERENCE = re.compile(
    r":(?:class|meth|attr|exc|data|func|mod):`[^`]*?~?(flask_durable[.\w]+)>?`"
)


@pytest.mark.parametrize("path", [*DOCS.glob("*.rst")])
def test_references_to_our_names_can_be_resolved(path: pathlib.Path) -> None:
    for target in REFERENCE.findall(path.read_text("utf-8")):
        assert _exists(target), target


def test_references_in_docstrings_can_be_resolved() -> None:
    for path in PACKAGE.rglob("*.py"):
        for target in REFERENCE.findall(path.read_text("utf-8")):
            assert _exists(target), (path, target)


def test_every_file_that_is_named_by_its_path_exists() -> None:
    for path in (*DOCS.glob("*.rst"), *PACKAGE.rglob("*.py")):
        named = re.findall(
            r"``((?:[a-z_]+/)+[a-z_]+\.(?:py|lua))``", path.read_text("utf-8")
        )
        for name in named:
            found = (PACKAGE / name, PACKAGE.parent / name)
            assert any(file.exists() for file in found), (path, name)


def _exists(target: str) -> bool:
    parts = target.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: t.Any = importlib.import_module(".".join(parts[:split]))
        except ImportError:
            continue
        for part in parts[split:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("folder", ["store", "queue/redis_streams"])
def test_every_script_is_described_in_the_architecture(folder: str) -> None:
    scripts = {path.stem for path in (PACKAGE / folder / "lua").glob("*.lua")}
    start = page("architecture").index(f"flask_durable/{folder}/lua")
    table = page("architecture")[start:].split(".. list-table::")[1]
    described = {row[0].strip("`") for row in rows(table) if row[0] != "script"}
    assert described == scripts


def test_every_folder_and_every_state_is_described() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/*.py")} - {"testing"}
    described = {row[0] for row in rows(page("architecture"))}
    assert {f"``{folder}/``" for folder in folders} <= described
    states = {row[0].strip("`") for row in rows(page("operating"))}
    assert {str(status) for status in RunStatus} <= states


# -- What is promised in figures --------------------------------------------------

LIMITS = {
    "Events of one HTTP request": [endpoint.MAX_EVENTS],
    "Body of one HTTP request": [100, http.MAX_EVENTS_BODY // 2**20],
    "An event, a result, in a blob store": [config.MAX_BLOB // 2**20],
    "Depth of an event, of a result": [envelope.MAX_DEPTH],
    "Characters of an event's name, of its id": [names.MAX_NAME, names.MAX_ID],
    "Characters of a function's id, of its queue's name": [
        checks.MAX_ID,
        options.MAX_QUEUE,
    ],
    "Characters of a step's name": [checks.MAX_STEP_NAME],
    "Steps of a run": [run_store.MAX_STEPS],
    "Stored results of a run": [run_store.MAX_MEMO_BYTES // 2**20],
    "Characters kept of an error's message, of its traceback": [
        failure.MAX_MESSAGE,
        failure.MAX_TRACEBACK,
    ],
    "Receives of a message before it is dead-lettered": [transport.MAX_RECEIVES],
    "Dead letters are kept for": [sqs_queues.DEAD_LETTERS_KEPT_SECONDS // 86400],
}


@pytest.mark.parametrize("label", LIMITS)
def test_a_documented_limit_is_the_limit(label: str) -> None:
    (text,) = [row[1] for row in rows(page("configuration")) if row[0] == label]
    figures = [
        int(number.replace(",", "")) for number in re.findall(r"[\d,]+\d|\d", text)
    ]
    assert figures == LIMITS[label]


def test_limits_that_are_documented_as_one_are_the_same() -> None:
    assert envelope.MAX_DEPTH == refusal.MAX_DEPTH
    assert (
        redis_streams.DEAD_LETTERS_KEPT_MS
        == sqs_queues.DEAD_LETTERS_KEPT_SECONDS * 1000
    )
    assert durations.MAX_SECONDS == 10 * 365 * 86400


def test_the_answers_of_the_endpoint_are_documented() -> None:
    table = {row[0]: row[1] for row in rows(page("events")) if row[0].isdigit()}
    ours = {str(status): f"``{name}``" for status, name in blueprint._CODES.items()}
    assert table == {
        **ours,
        "202": "",
        "405": "``method_not_allowed``",
        "503": "``unavailable``",
    }


# -- Examples ---------------------------------------------------------------------


def one_file_app() -> str:
    (block,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    return t.cast(str, block)


def test_the_quickstart_shows_the_same_app_as_the_readme() -> None:
    assert code("quickstart", "def fulfil(event: Event, step: Step):\n").startswith(
        one_file_app()[:60]
    )
    assert one_file_app().strip() in code("quickstart", "def order(cents)")


def test_the_plain_steps_of_the_testing_page_drive_that_app() -> None:
    space: dict[str, t.Any] = {"__name__": "app"}
    exec(one_file_app(), space)
    exec(code("testing", "class PlainSteps"), space)
    space["test_what_is_ordered_is_charged_and_shipped"]()


def test_a_request_that_is_signed_as_the_events_page_says_is_accepted() -> None:
    space: dict[str, t.Any] = {}
    exec(code("events", "def sign(secret, id, body)"), space)
    secret = "whsec_" + "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0"
    headers = space["sign"](secret, "m-1", b"{}")
    raw = keys.secret_bytes(secret)
    assert signatures.verify(headers, b"{}", [raw]) == "m-1"
    assert signatures.verify(headers, b"[]", [raw]) is None


@pytest.mark.parametrize("path", [*DOCS.glob("*.rst")])
def test_every_page_is_in_the_table_of_contents(path: pathlib.Path) -> None:
    assert path.stem == "index" or f"\n   {path.stem}\n" in page("index") + "\n"


def test_the_documentation_builds_without_a_warning(tmp_path: pathlib.Path) -> None:
    for name in ("sphinx", "pallets_sphinx_themes"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: it is in the extra docs")
    command = [sys.executable, "-m", "sphinx", "-E", "-W", "-q", "-b", "dirhtml"]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
