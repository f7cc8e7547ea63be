"""A pool that two scripts read and resize."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from flask_durable.errors import ConfigurationError
from flask_durable.errors import PlatformError
from flask_durable.scaler.decision.observation import Size
from flask_durable.scaler.platforms import make_platform
from flask_durable.scaler.platforms.base import Applied
from flask_durable.scaler.platforms.base import Platform

from ...support.servers import wait_until

APPLY = """
import pathlib, sys
folder, n, victims = sys.argv[1:]
folder = pathlib.Path(folder)
(folder / "size").write_text(n)
(folder / "calls").open("a").write(f"{n} {victims}\\n")
"""


def pool(folder: pathlib.Path, **options: object) -> Platform:
    (folder / "size").write_text("2")
    (folder / "apply.py").write_text(APPLY)
    return make_platform(
        {
            "platform": "command",
            "read": f"cat {folder}/size",
            "apply": [
                *(sys.executable, f"{folder}/apply.py", str(folder)),
                *("{n}", "{victims}"),
            ],
            **options,
        }
    )


def test_the_commands_read_and_resize_the_pool(tmp_path: pathlib.Path) -> None:
    platform = pool(tmp_path)
    assert platform.read() == Size(asked=2, running=2, booting=0)
    assert platform.resize(5) == Applied(before=2, after=5)
    assert platform.read().asked == 5
    assert platform.resize(4, ["host a", "$(reboot)"]) == Applied(before=5, after=4)
    assert (tmp_path / "calls").read_text() == "5 \n4 host a,$(reboot)\n"


def test_nothing_is_run_for_the_size_that_there_is(tmp_path: pathlib.Path) -> None:
    assert pool(tmp_path).resize(2) == Applied(before=2, after=2)
    assert not (tmp_path / "calls").exists()


def test_a_second_number_tells_how_many_run(tmp_path: pathlib.Path) -> None:
    platform = pool(tmp_path)
    (tmp_path / "size").write_text("5 3\n")
    assert platform.read() == Size(asked=5, running=3, booting=2)
    (tmp_path / "size").write_text("5 7\n")
    assert platform.read() == Size(asked=5, running=5, booting=0)


@pytest.mark.parametrize("printed", ["", "many", "-1", "1 2 3", "1.5", "2 -1"])
def test_what_is_no_number_is_an_error_not_a_zero(
    printed: str, tmp_path: pathlib.Path
) -> None:
    platform = pool(tmp_path)
    (tmp_path / "size").write_text(printed)
    with pytest.raises(PlatformError, match="did not print"):
        platform.read()
    with pytest.raises(PlatformError, match="did not print"):
        platform.resize(1)
    assert not (tmp_path / "calls").exists()


def test_a_command_that_fails_is_told_with_its_last_line(
    tmp_path: pathlib.Path,
) -> None:
    platform = pool(
        tmp_path, read="sh -c 'echo first >&2; echo no such pool >&2; false'"
    )
    with pytest.raises(PlatformError, match="sh ended with 1: no such pool"):
        platform.read()


def test_a_command_that_does_not_exist_is_named() -> None:
    platform = make_platform(
        {"platform": "command", "read": "/nowhere/read", "apply": "/nowhere/apply {n}"}
    )
    with pytest.raises(PlatformError, match="/nowhere/read cannot be run") as caught:
        platform.read()
    assert caught.value.code == "platform.not_found"


def test_a_command_that_hangs_is_ended_with_its_children(
    tmp_path: pathlib.Path,
) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
    platform = pool(tmp_path, read=["sh", "-c", script], timeout=1.5)
    with pytest.raises(PlatformError, match=r"longer than 1\.5 s") as caught:
        platform.read()
    assert caught.value.code == "platform.unavailable"
    child = (tmp_path / "pid").read_text().strip()
    wait_until(lambda: not is_alive(child), "the child's end")


def is_alive(pid: str) -> bool:
    command = ["ps", "-o", "stat=", "-p", pid]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")


def test_a_command_chooses_victims_only_if_it_is_told_them_or_drains() -> None:
    def picks(apply: str, **options: object) -> bool:
        made = {"platform": "command", "read": "cat n", "apply": apply, **options}
        return make_platform(made).traits.picks_victims

    assert not picks("./resize {n}")
    assert picks("./resize {n} --remove={victims}")
    assert picks("./resize {n}", drains=True)


@pytest.mark.parametrize("apply", ["./resize", "", "./resize '{n}"])
def test_commands_that_cannot_work_are_refused(apply: str) -> None:
    with pytest.raises(ConfigurationError, match="of the platform command"):
        make_platform({"platform": "command", "read": "cat n", "apply": apply})


def test_arguments_are_not_described(tmp_path: pathlib.Path) -> None:
    assert pool(tmp_path).describe() == f"command:{sys.executable}"
