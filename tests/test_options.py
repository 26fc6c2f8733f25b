"""Settings that describe themselves: ranges, needs, keywords."""

import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_type_hints

import pytest

from gindex.config import BuildConfig, CurvatureConfig, FidelityConfig, VectorConfig
from gindex.errors import ConfigError
from gindex.keywords import ScoreKeywords, SearchKeywords
from gindex.options import Settings, as_in, changed, option, option_of, options_of
from gindex.search_options import ScoreOptions, SearchOptions
from gindex.serve.config import ServeConfig

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Example(Settings):
    """Settings of every sort."""

    count: int = option(3, "At least one.", least=1)
    share: float | None = option(None, "A part of the whole.", above=0, most=1, unset="off")
    port: int = option(0, "From and to.", least=0, most=9)
    kind: str = option("a", "One of two.", choices=("a", "b"))
    late: str = option("x", "Known when it is asked for.", choices=lambda: ("x", "y"))
    deep: int = option(5, "Of kind b alone.", least=1, needs=("kind=b", "share"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "count: expected at least 1, found 0"),
        ({"count": float("nan")}, "count: expected at least 1, found nan"),
        ({"count": float("inf")}, "count: expected at least 1, found inf"),
        ({"count": None}, "count: expected at least 1, found None"),
        ({"share": 0.0}, "share: expected a number in (0, 1], found 0.0"),
        ({"share": 1.5}, "share: expected a number in (0, 1], found 1.5"),
        ({"port": 10}, "port: expected from 0 to 9, found 10"),
        ({"kind": "c"}, "kind: expected one of a, b, found 'c'"),
        ({"late": "a"}, "late: expected one of x, y, found 'a'"),
        ({"deep": 6}, "deep: expected `kind` b or `share` beside it, found none; give that, or leave `deep` out"),
    ],
)
def test_what_is_out_of_range_or_does_nothing_is_refused(given, message):
    with pytest.raises(ConfigError) as caught:
        Example(**given)
    assert str(caught.value) == message


def test_what_is_in_range_is_taken():
    assert Example(count=1, share=1, port=9, kind="b", late="y", deep=1).deep == 1
    assert Example(share=0.5, deep=6).share == 0.5
    assert Example(deep=5).deep == 5  # the default does nothing, and nobody gave it


def test_a_field_like_another():
    @dataclass(frozen=True, kw_only=True)
    class Other(Settings):
        number: int = as_in(Example, "count", default=7, group="others")

    assert Other().number == 7 and option_of(options_of(Other)["number"]).group == "others"
    with pytest.raises(ConfigError, match="number: expected at least 1"):
        Other(number=0)


def test_a_misspelt_setting_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"candidate: expected a setting of SearchOptions, .*mean `candidates`"):
        changed(SearchOptions(), {"candidate": 5})
    with pytest.raises(ConfigError, match="zzz: expected a setting of Example, found none of that name; there are cou"):
        changed(Example(), {"zzz": 5})


@pytest.mark.parametrize(
    "config", [BuildConfig, CurvatureConfig, FidelityConfig, VectorConfig, SearchOptions, ServeConfig]
)
def test_needs_are_settings_and_defaults_are_in_range(config):
    assert config() == config()
    for name, of in options_of(config).items():
        described = option_of(of)
        assert of.default is None or described.takes(of.default), name
        assert {need.partition("=")[0] for need in described.needs} <= options_of(config).keys(), name


@pytest.mark.parametrize(("keywords", "config"), [(SearchKeywords, SearchOptions), (ScoreKeywords, ScoreOptions)])
def test_keywords_are_the_settings(keywords, config):
    assert get_type_hints(keywords) == get_type_hints(config)
    assert not keywords.__required_keys__
    assert list(keywords.__annotations__) == [each.name for each in fields(config)]


def test_a_setting_that_was_renamed_is_named():
    with pytest.raises(ConfigError, match=r"group_score: .*; it is called `document_score` now"):
        changed(SearchOptions(), {"group_score": "sum"})


CALLS = """
from gindex.client import AsyncClient, Client
from gindex.index import GradientIndex

async def ask(index: GradientIndex, client: Client, other: AsyncClient) -> None:
    index.search("a", k=3, where=None, exact=True, refine_parts=None)
    client.search_each([], words="rank")
    await other.search("a", dedupe=0.9)
    index.search("a", kk=3)
    index.search_each([], k="3")
    client.search("a", kk=3)
    await other.search_many([], kk=3)
"""


@pytest.mark.slow
def test_a_misspelt_keyword_is_found_by_mypy(tmp_path):
    (tmp_path / "calls.py").write_text(CALLS)
    # The options are those of a whole check, whose cache serves here too.
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(tmp_path / "calls.py")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    lines = [line.split(":")[1] for line in found.splitlines() if "error:" in line]
    assert lines == ["9", "10", "11", "12"], found
    assert 'Unexpected keyword argument "kk"' in found


OLD = {
    "corpus": {"text_field": "text", "id_field": "id", "max_tokens": 64},
    "model": {"name": "model", "dtype": "float32"},
    "curvature": {
        "curvature": "ekfac", "fit_documents": 0, "damping_scale": 0.1, "index_damping": None,
        "calibration_documents": 64,
    },
    "vectors": {"dimension": 512, "rank_fraction": None, "bits": 1, "projection": "count-sketch"},
    "seed": 0,
}  # fmt: skip
"""Settings in the manifest of an older gindex, which wrote 0 where all documents are fitted on."""


def test_settings_of_older_indexes_are_read():
    config = BuildConfig.of_settings(OLD)
    assert config.curvature.fit_documents is None and config.vectors.dimension == 512
    assert BuildConfig.of_settings(config.settings()).settings() == config.settings()
    assert config.settings() == OLD | {"curvature": OLD["curvature"] | {"fit_documents": None}}


def test_a_build_that_an_older_gindex_began_goes_on():
    from gindex.build.state import comparable

    assert comparable(OLD) == comparable(BuildConfig.of_settings(OLD).settings())
