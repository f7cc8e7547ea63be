"""Sources are made by name, of options that are checked."""

from __future__ import annotations

import pathlib

import pytest

from flask_durable.errors import ConfigurationError
from flask_durable.scaler.sources import make_source

PLUGIN = """
class PoolState:
    def __init__(self, *, page: int = 1) -> None:
        self.page = page
"""


def test_an_unknown_source_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError, match=r"no source 'prometeus'.*'prometheus'"
    ):
        make_source({"source": "prometeus"})
    with pytest.raises(ConfigurationError, match="There is no source None"):
        make_source({"url": "http://prometheus"})


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    options = {"source": "prometheus", "url": "http://prometheus", "nams": {}}
    with pytest.raises(ConfigurationError, match=r"'nams'.*mean 'names'.*window"):
        make_source(options)


def test_an_option_that_is_missing_or_wrong_is_named_and_its_value_is_not() -> None:
    options = {"source": "prometheus", "unit": "weeks", "token": ["s3cret"]}
    with pytest.raises(ConfigurationError) as caught:
        make_source(options)
    for part in ("'url' is missing", "'unit' is wrong", "'token' is wrong"):
        assert part in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_another_distribution_adds_a_source(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notebook_plugin.py").write_text(PLUGIN)
    metadata = tmp_path / "notebook-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: notebook\n")
    (metadata / "entry_points.txt").write_text(
        "[flask_durable.duration_sources]\nnotebook = notebook_plugin:PoolState\n"
        "prometheus = notebook_plugin:PoolState\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert vars(make_source({"source": "notebook", "page": 7})) == {"page": 7}
    with pytest.raises(ConfigurationError, match="no option 'ink'"):
        make_source({"source": "notebook", "ink": 1})
    with pytest.raises(ConfigurationError, match="no option 'page'"):
        make_source({"source": "prometheus", "page": 1})
