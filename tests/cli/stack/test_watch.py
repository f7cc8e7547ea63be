"""The changes of the source that are noticed."""

from __future__ import annotations

import importlib
import os
import pathlib
import sys
import typing as t

import pytest

from flask_durable.cli.stack.watch import SourceWatcher


@pytest.fixture
def project(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[pathlib.Path]:
    package = tmp_path / "watched_project"
    (package / "views").mkdir(parents=True)
    (package / "data").mkdir()
    for path in ("__init__.py", "views/__init__.py", "views/home.py", "data/x.py"):
        (package / path).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("watched_project")
    yield package
    del sys.modules["watched_project"]


def test_nothing_changed_at_first(project: pathlib.Path) -> None:
    assert SourceWatcher().changed() == []


def test_a_change_of_a_module_is_noticed_once(project: pathlib.Path) -> None:
    watcher = SourceWatcher()
    path = project / "__init__.py"
    os.utime(path, (1, 1))
    assert watcher.changed() == [str(path)]
    assert watcher.changed() == []


def test_modules_of_inner_packages_are_noticed_before_they_are_imported(
    project: pathlib.Path,
) -> None:
    watcher = SourceWatcher()
    os.utime(project / "views" / "home.py", (1, 1))
    assert watcher.changed() == [str(project / "views" / "home.py")]


def test_files_that_come_and_go_are_noticed(project: pathlib.Path) -> None:
    watcher = SourceWatcher()
    new = project / "new.py"
    new.write_text("")
    assert watcher.changed() == [str(new)]
    new.unlink()
    assert watcher.changed() == [str(new)]


def test_folders_that_are_no_packages_and_other_files_are_left_out(
    project: pathlib.Path,
) -> None:
    watcher = SourceWatcher()
    os.utime(project / "data" / "x.py", (1, 1))
    (project / "notes.txt").write_text("")
    assert watcher.changed() == []


def test_what_is_installed_is_left_out() -> None:
    folders = SourceWatcher()._folders
    assert not any("site-packages" in folder for folder in folders)
    assert os.path.dirname(os.__file__) not in folders
