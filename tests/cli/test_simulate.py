"""``flask durable scale simulate``, which needs no server."""

from __future__ import annotations

import json
import pathlib
import re
import typing as t
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_durable import Durable
from flask_durable.cli import durable_cli
from flask_durable.scaler.simulation.workloads import generate

DOCS = pathlib.Path(__file__).parents[2] / "docs"

POOL = {
    **{"desired_wait": "20s", "queues": ["video"], "slots": 2, "maximum": 50},
    **{"boot": "5s", "period": "5s"},
}


@pytest.fixture
def trace(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "jobs.csv"
    rows = (f"{100 + number % 7},encode,4" for number in range(50))
    path.write_text("\n".join(["at,function,seconds", *rows]))
    return str(path)


def simulate(*arguments: str) -> Result:
    app = Flask(__name__)
    app.config["DURABLE_SCALE"] = {"media": POOL}
    Durable(app)
    arguments = ("scale", "simulate", *arguments)
    return CliRunner().invoke(
        durable_cli, arguments, obj=ScriptInfo(create_app=lambda: app)
    )


def rows(result: Result) -> dict[str, list[str]]:
    assert result.exit_code == 0, result.output
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    return {name: cells for name, *cells in lines}


def shown() -> list[list[str]]:
    """Return the cells of each line of the page."""
    page = (DOCS / "simulation.rst").read_text("utf-8")
    return [re.split(" {2,}", line.strip()) for line in page.splitlines()]


def test_the_table_and_the_plot_of_the_page_are_what_the_command_prints(
    tmp_path: pathlib.Path,
) -> None:
    plot = tmp_path / "plot.svg"
    result = simulate("--workload", "mixed", "--svg", str(plot))
    for name, cells in rows(result).items():
        assert [name, *cells] in shown()
    tags = [element.tag for element in ElementTree.parse(plot).iter()]
    kept = [
        element.tag for element in ElementTree.parse(DOCS / "simulation.svg").iter()
    ]
    assert tags == kept


def test_bursts_cost_what_the_page_says() -> None:
    policies = ("--policy", "durable", "--policy", "rule-of-thumb")
    others = ("wait=90s", "wait=120s", "wait=300s", "boot=15s")
    changes = [argument for what in others for argument in ("--what-if", what)]
    found = rows(simulate("--workload", "bursty", *policies, *changes))
    for name, cells in found.items():
        assert [name, *cells] in shown()
    work = sum(job.seconds for job in generate("bursty", 1)) / 3600
    for change, wait, boot in (
        *(("", 60, 22.5), (", wait=90s", 90, 22.5), (", wait=120s", 120, 22.5)),
        *((", wait=300s", 300, 22.5), (", boot=15s", 60, 11.25)),
    ):
        expected = work * wait / (wait - boot - 15 / 2)
        hours = float(found[f"durable{change}"][4])
        assert hours == pytest.approx(expected, rel=0.06)


def test_each_change_is_beside_the_pool_as_it_is_configured(trace: str) -> None:
    result = simulate(
        *("-q", "video", "--trace", trace, "--what-if", "wait=60s"),
        *("--what-if", "max=1,threads=1"),
    )
    found = rows(result)
    assert list(found) == [
        *("durable", "durable, wait=60s", "durable, max=1,threads=1"),
    ]
    most = [int(cells[5]) for cells in found.values()]
    assert most[0] > most[1] > most[2] == 1


def test_policies_can_be_chosen_and_the_same_seed_gives_the_same(trace: str) -> None:
    arguments = ("--trace", trace, "--policy", "fixed:3", "--policy", "steps")
    chance = ("--lag", "5s", "--noise", "2", "--prefetch", "1", "--seed", "7")
    first = simulate(*arguments, *chance)
    assert list(rows(first)) == ["fixed:3", "steps"]
    assert simulate(*arguments, *chance).stdout == first.stdout
    assert simulate(*arguments, "--seed", "8").stdout != first.stdout


def test_a_pool_of_a_fixed_size_costs_by_default_what_ours_does() -> None:
    found = rows(simulate("--workload", "steady"))
    ours, fixed = (float(found[name][4]) for name in ("durable", "fixed"))
    assert fixed == pytest.approx(ours, rel=0.2)


def test_json_has_the_numbers_and_null_for_a_wait_without_an_end(trace: str) -> None:
    result = simulate("--trace", trace, "--policy", "durable", "--json", "-q", "media")
    printed = json.loads(result.stdout)
    assert (printed["jobs"], printed["seed"], printed["lag"]) == (50, 1, 0)
    [row] = printed["results"]
    assert (row["policy"], row["pool"], row["kills"]) == ("durable", "configured", 0)
    assert row["desired_wait"] == 20

    printed = json.loads(
        simulate("--trace", trace, "--what-if", "max=0", "--json").stdout
    )
    assert printed["results"][1]["p50"] is None
    assert printed["results"][1]["missed"] == 1


def test_a_plot_names_each_line_and_shows_the_wait(
    trace: str, tmp_path: pathlib.Path
) -> None:
    plot = tmp_path / "plot.svg"
    arguments = ("--trace", trace, "-q", "media", "--what-if", "max=0")
    assert simulate(*arguments, "--svg", str(plot)).exit_code == 0
    svg = plot.read_text("utf-8")
    assert "durable, max=0: 100.0 % missed" in svg
    assert svg.count('class="wanted"') == 1
    assert "prefers-color-scheme: dark" in svg
    assert "href" not in svg
    assert not re.search(r"\b(nan|inf)\b", svg)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--what-if", "wiat=3s"),
            "'wiat=3s' is not KEY=VALUE with a key of wait, min",
        ),
        (("--what-if", "max=many"), "max=many is not a whole number"),
        (("--what-if", "threads=0"), "threads=0 is not a whole number"),
        (("--what-if", "wait=0"), "desired wait is not a positive number"),
        (("--what-if", "min=3,max=2"), "not 0 <= minimum <= maximum"),
        (("--policy", "magic"), "There is no 'magic'; there are: durable,"),
        (("--policy", "fixed:none"), "There is no 'fixed:none'"),
        (("--workload", "none"), "There is no 'none'; there are: burst,"),
        (("--queue", "none"), "no pool for none; there are: media"),
        (("--trace", "-"), "there are no jobs in it"),
        (("--trace", "-", "--workload", "mixed"), "either --workload or --trace"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: t.Sequence[str], message: str
) -> None:
    result = simulate(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_a_trace_that_is_none_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text('{"at": 3}')
    result = simulate("--trace", str(path))
    assert result.exit_code == 2
    assert "jobs.jsonl: line 1 is no job" in result.stderr


def test_scale_without_simulate_still_wants_a_pool() -> None:
    app = Flask(__name__)
    Durable(app)
    info = ScriptInfo(create_app=lambda: app)
    result = CliRunner().invoke(durable_cli, ["scale"], obj=info)
    assert result.exit_code == 2
    assert "either --queue or --all" in result.stderr
