"""The commands that README tells a reader to type do what README says."""

from __future__ import annotations

import configparser
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import typing as t
import urllib.request

import pytest

from .cli.conftest import Dev
from .cli.conftest import TIMEOUT
from .support.servers import wait_until

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.S)


def block(containing: str) -> str:
    """Return the one block of README with *containing* in it."""
    (found,) = [text for _, text in BLOCKS if containing in text]
    return t.cast(str, found)


def line(containing: str) -> str:
    """Return the one command line of README's blocks with *containing* in it."""
    lines = [line for _, text in BLOCKS for line in text.splitlines()]
    (found,) = [line for line in lines if containing in line]
    return str(found).removeprefix("$ ")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with README's one-file app, exactly as it is shown."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "app.py").write_text(block("app = Flask(__name__)"), "utf-8")
    return folder


@pytest.fixture(scope="module")
def dev(project: pathlib.Path) -> t.Iterator[Dev]:
    """README's ``flask durable dev``, on a port that is free."""
    words = shlex.split(line("flask durable dev"))
    assert words == ["flask", "durable", "dev"]
    process = subprocess.Popen(
        [sys.executable, "-m", *words, "--port", "0"],
        cwd=project,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    dev = Dev(process)
    yield dev
    dev.close()
    print(dev.output)


def flask(project: pathlib.Path, command: str, *options: str) -> str:
    """Type a ``flask`` command line of README; return what it prints to stdout."""
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command), *options],
        cwd=project,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_one_file_app_runs_as_pasted(dev: Dev, project: pathlib.Path) -> None:
    dev.find(r"(fulfil on order/placed)")
    printed = flask(project, line("flask durable send"), "--json")
    (run,) = json.loads(printed)["runs"]
    assert run["status"] == "completed"
    assert json.dumps(run["result"]) in block("flask durable send")
    shown = flask(project, f"flask durable runs show {run['id']} --json")
    steps = json.loads(shown)["steps"]
    assert [(step["name"], step["kind"], step["attempt"]) for step in steps] == [
        ("charge", "run", 1),
        ("time-to-change-ones-mind", "sleep", 0),
        ("ship", "run", 2),
    ]


def test_its_own_route_starts_a_run_too(dev: Dev, project: pathlib.Path) -> None:
    assert "curl -X POST localhost:5000/orders/4200" in README
    request = urllib.request.Request(f"{dev.url}/orders/4200", method="POST")
    answers: list[str] = []

    def accepted() -> bool:
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                assert response.status == 202
                answers.append(json.load(response)["event"])
        except OSError:
            assert dev.process.poll() is None, dev.output
        return bool(answers)

    wait_until(accepted, "the web app", TIMEOUT)

    def completed() -> bool:
        listed = flask(project, "flask durable runs list --status completed --json")
        return answers[0] in [run["event"]["id"] for run in json.loads(listed)]

    wait_until(completed, "the run of the order", TIMEOUT)


def test_what_dev_prints_is_what_readme_shows(dev: Dev) -> None:
    shown = block("not for production").splitlines()
    dev.find(r"(Press CTRL\+C)")
    printed = dev.output.splitlines()
    for text in shown[1:]:
        beginning = re.split(r"\d", text)[0]
        assert any(line.startswith(beginning) for line in printed), text


def test_the_line_that_passes_the_tests_is_what_continuous_integration_runs() -> None:
    command = line(".venv/bin/pytest")
    assert command in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()


def extras_of_setup() -> dict[str, set[str]]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    return {name: {*filter(None, extras[name].splitlines())} for name in extras}


def test_the_extra_of_the_tests_has_what_an_app_can_install() -> None:
    extras = extras_of_setup()
    assert extras["all"] <= extras["tests"]


def test_the_extras_that_readme_installs_exist() -> None:
    known = set(extras_of_setup())
    named = re.findall(r'"(?:\.|flask-durable)\[([\w,]+)\]"', README)
    assert named
    for extras in named:
        assert set(extras.split(",")) <= known, extras


def test_the_demo_is_a_command_of_the_example() -> None:
    assert line("--app example_app demo").endswith("flask --app example_app demo")
    source = (ROOT / "example_app" / "demo.py").read_text("utf-8")
    for option in re.findall(r"demo (--[a-z]+)", README):
        assert f'"{option}"' in source, option


def test_what_readme_links_to_exists() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert targets
    for target in targets:
        assert "://" in target or (ROOT / target).exists(), target


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}
    return {**kept, "NO_COLOR": "1"}


# Links, also where README is the page of the package


def project_urls() -> dict[str, str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    lines = setup["metadata"]["project_urls"].strip().splitlines()
    return dict(tuple(line.split(" = ")) for line in lines)


def test_each_link_leads_to_a_page_or_a_file_that_is_there() -> None:
    urls = project_urls()
    links = dict(re.findall(r"^\[([a-z-]+)\]: (\S+)$", README, re.M))
    assert set(re.findall(r"\]\[([a-z-]+)\]", README)) == set(links)
    docs, source = f"{urls['Documentation']}en/latest/", f"{urls['Source']}/"
    for link in links.values():
        if link.startswith(docs):
            found = ROOT / "docs" / f"{link.removeprefix(docs).rstrip('/')}.rst"
        else:
            path = link.removeprefix(source)
            found = ROOT / re.sub("^(tree|blob)/main/", "", path)
        assert found.exists(), link


def test_no_link_is_relative() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert [each for each in targets if not each.startswith("https://")] == []


def test_the_metadata_has_the_places_that_people_look_for() -> None:
    assert project_urls().keys() >= {"Documentation", "Source", "Changes", "Issues"}
