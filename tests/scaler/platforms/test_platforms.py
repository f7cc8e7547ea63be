"""Platforms are made by name, of options that are checked."""

from __future__ import annotations

import pathlib
import sys

import pytest

from flask_durable.errors import ConfigurationError
from flask_durable.scaler.decision.observation import Size
from flask_durable.scaler.platforms import make_platform
from flask_durable.scaler.platforms.base import Applied

PLUGIN = """
class Zoo:
    def __init__(self, *, cages: int = 3) -> None:
        self.cages = cages
"""


def test_a_fixed_pool_is_explained_and_never_resized() -> None:
    platform = make_platform({"platform": "fixed", "workers": 3})
    assert platform.describe() == "fixed:3"
    assert platform.read() == Size(asked=3, running=3, booting=0)
    assert platform.resize(9) == Applied(before=3, after=3, limit=3)
    assert platform.traits.maximum == 3


def test_an_unknown_platform_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'herokuu'.*mean 'heroku'.*command"):
        make_platform({"platform": "herokuu"})
    with pytest.raises(ConfigurationError, match="There is no platform None"):
        make_platform({"app": "shop"})


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    options = {"platform": "heroku", "app": "shop", "proces": "media", "token": "t"}
    with pytest.raises(ConfigurationError, match=r"'proces'.*mean 'process'.*app"):
        make_platform(options)


def test_an_option_that_is_missing_or_wrong_is_named_and_its_value_is_not() -> None:
    with pytest.raises(ConfigurationError, match="'app' is missing, 'token' is wrong"):
        make_platform({"platform": "heroku", "token": 31337})
    with pytest.raises(ConfigurationError) as caught:
        make_platform({"platform": "heroku", "app": "shop", "token": ["s3cret"]})
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("library", "extra", "options"),
    [
        ("urllib3", "scaler", {"platform": "heroku", "app": "shop", "token": "t"}),
        ("boto3.session", "aws", {"platform": "ecs", "service": "media"}),
    ],
)
def test_a_library_that_is_missing_is_told_with_its_extra(
    library: str,
    extra: str,
    options: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=rf"flask-durable\[{extra}\]"):
        make_platform(options)


def test_another_distribution_adds_a_platform(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo_plugin.py").write_text(PLUGIN)
    metadata = tmp_path / "zoo-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\n")
    (metadata / "entry_points.txt").write_text(
        "[flask_durable.platforms]\nzoo = zoo_plugin:Zoo\nfixed = zoo_plugin:Zoo\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert vars(make_platform({"platform": "zoo", "cages": 7})) == {"cages": 7}
    with pytest.raises(ConfigurationError, match=r"no option 'lions'.*Known: cages"):
        make_platform({"platform": "zoo", "lions": 1})
    assert make_platform({"platform": "fixed", "workers": 1}).read().asked == 1
