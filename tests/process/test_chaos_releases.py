"""Two releases serve one app side by side, as in each deploy and each roll-back."""

from __future__ import annotations

import io
import os
import pathlib
import random
import subprocess
import tarfile
import typing as t

import pytest

from .chaos import Chaos
from .chaos import HOUR
from .chaos import Misdeed
from .sites import Process
from .sites import Site

#: The older release: a commit of this repository. Move it on when a change is meant to
#: keep workers of both sides from running side by side, and say so in CHANGES.md.
OLDER = "29f50e1"

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process of the older release, whose app has less."""
    archive = subprocess.run(
        ["git", "archive", OLDER, "flask_durable"], cwd=ROOT, capture_output=True
    )
    if archive.returncode:
        reason = f"the older release is not in this clone: {archive.stderr.decode()}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return {
        "PYTHONPATH": str(folder),
        # Else the folder that the process is started in comes first.
        "PYTHONSAFEPATH": "1",
        "TEST_WITHOUT": "fresh,growth,tangle",
    }


def test_while_workers_of_an_older_release_start_last_nothing_is_lost_or_repeated(
    any_site: Site, older: dict[str, str], chance: random.Random, reign: float
) -> None:
    Releases(any_site, chance, older, "older").rule(reign)


def test_while_workers_of_a_newer_release_start_last_nothing_is_lost_or_repeated(
    site: Site, older: dict[str, str], chance: random.Random, reign: float
) -> None:
    Releases(site, chance, older, "newer").rule(reign)


class Releases(Chaos):
    """Takes workers of both releases down and up, while it adds to the app.

    :param older: The environment of the older release.
    :param last: The release that a worker of is started last, before only those of
        the newer one are left.
    """

    #: The older release has neither waits nor branches.
    names: t.ClassVar = [*["work/five"] * 4, "work/snooze"]

    def __init__(
        self, site: Site, chance: random.Random, older: dict[str, str], last: str
    ) -> None:
        super().__init__(site, chance)
        self._older = older
        self._last = last
        self._turn = 0
        self._of_older: list[Process] = []

    def rule(self, seconds: float) -> None:
        """Let things go wrong, and judge."""
        self.reign(seconds)
        for worker in self._of_older:
            worker.wait()
        # Nobody defers a run to a worker that has its code any more.
        self.site.skip(HOUR)
        self.judge()
        packages = {line["package"] for line in self.site.trace()}
        assert len(packages) == 2, packages

    def misdeeds(self) -> list[Misdeed]:
        return [*super().misdeeds(), *[self.end_a_worker] * 4]

    def worker(self) -> Process:
        # In turns at first, so that each test has both orders and a mixture.
        self._turn += 1
        if self._turn <= self.size:
            old = (self._turn % 2 == 1) == (self._last == "newer")
        else:
            old = self.chance.random() < 0.5
        worker = self.site.worker(**self._older if old else {})
        if old:
            self._of_older.append(worker)
        return worker

    def event(self) -> tuple[str, dict[str, t.Any]]:
        names = ["work/grown", "work/added", "work/sized", "work/fresh"]
        if self.chance.random() < 0.5:
            return super().event()
        size = self.chance.choice(["small", "large"])
        return self.chance.choice(names), {"size": size}

    def heal(self) -> None:
        super().heal()
        if self._last == "older":
            straggler = self.site.ready(**self._older)
            self.workers.append(straggler)
            self._of_older.append(straggler)
        self.workers.append(self.site.ready())
        for worker in [each for each in self.workers if each in self._of_older]:
            self.workers.remove(worker)
            self.end(worker)
        for _ in range(8):
            self.send()
