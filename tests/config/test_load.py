"""Settings: defaults < base < file < --set, and errors that say what to do."""

import tomllib
from enum import StrEnum
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, PositiveFloat, PositiveInt

from nf2vec_cli.config.describe import describe, settings_of, toml_value
from nf2vec_cli.config.fit import FitConfig, Preset, Recipe, fit_defaults
from nf2vec_cli.config.load import given_settings, load_config
from nf2vec_cli.config.strict import StrictModel
from nf2vec_cli.errors import ConfigError


class Kind(StrEnum):
    round = "round"
    square = "square"


class Inner(StrictModel):
    """Settings inside settings."""

    rate: PositiveFloat = Field(0.5, description="Step size.")
    name: str = 'a "quoted" näme \x7f'


class ToyConfig(StrictModel):
    """How a toy is made. A second sentence."""

    inner: Inner = Inner()
    steps: PositiveInt = Field(5, description="Steps to take.")
    size: int = Field(16, ge=16, le=64, multiple_of=16, description="Size of the toy.")
    kind: Kind = Field(Kind.round, description="Its form.")
    mode: Literal["fast", "slow"] = "fast"
    limit: float | None = Field(None, description="Upper limit, if there is one.")
    loud: bool = False
    label: str = "toy"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text("steps = 7\nsize = 32\n[inner]\nrate = 0.25\n")
    return path


def complaint(**sources):
    with pytest.raises(ConfigError) as caught:
        load_config(ToyConfig, **sources)
    assert caught.value.hint
    return caught.value.message


def test_later_sources_win(file):
    base = {"steps": 6, "size": 48, "kind": "square", "inner": {"name": "n"}}

    made = load_config(ToyConfig, file=file, overrides=["size=64", "steps=9"], base=base)

    assert (made.size, made.steps, made.kind) == (64, 9, Kind.square)
    assert (made.inner.rate, made.inner.name) == (0.25, "n")
    assert load_config(ToyConfig, file=file, base=base).steps == 7
    assert load_config(ToyConfig, base=base).steps == 6
    assert load_config(ToyConfig).steps == 5


def test_the_last_set_wins_and_dots_reach_inside():
    made = load_config(ToyConfig, overrides=["inner.rate=1", "inner.rate = 2.5", "inner.name=x=y"])

    assert made.inner == Inner(rate=2.5, name="x=y")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loud=true", {"loud": True}),
        ("steps=1_000", {"steps": 1000}),
        ("inner.rate=1e-4", {"inner": {"rate": 1e-4}}),
        ("label=bare word", {"label": "bare word"}),
        ('label="12"', {"label": "12"}),
        ("label=", {"label": ""}),
        ("label=1\nsteps=2", {"label": "1\nsteps=2"}),
        ("kind=square", {"kind": "square"}),
    ],
)
def test_set_values_are_toml_or_else_text(text, expected):
    assert given_settings(None, [text]) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps=0", "steps: Input should be greater than 0 (got 0)"),
        ("stepps=1", "stepps: no such setting; the nearest is steps"),
        ("inner.rte=1", "inner.rte: no such setting; the nearest is inner.rate"),
        ("zzzz=1", "zzzz: no such setting"),
        ("inner.rate=nan", "inner.rate: Input should be a finite number (got nan)"),
        ("steps=true", "steps: Input should be a number (got True)"),
        ("kind=oval", "kind: Input should be 'round' or 'square' (got 'oval')"),
        ("size=24", "size: Input should be a multiple of 16 (got 24)"),
        ("inner=3", "inner: Input should be a valid dictionary or instance of Inner (got 3)"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_wrong(text, message):
    assert complaint(overrides=[text]) == message


@pytest.mark.parametrize("text", ["steps", "=3", ".a=3", ""])
def test_what_is_no_setting_is_refused(text):
    assert "is not KEY=VALUE" in complaint(overrides=[text])


def test_all_faults_are_told_at_once():
    assert complaint(overrides=["steps=0", "size=1000"]).count("Input should be") == 2


def test_a_fault_between_two_settings_is_told_in_its_own_words():
    with pytest.raises(
        ConfigError, match=r"^points \(5000\) cannot exceed pool \(4000\)$"
    ) as caught:
        load_config(FitConfig, overrides=["points=5000", "pool=4000"])
    assert caught.value.hint == "`nf2vec config fit` lists every setting"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"steps = \n", "is not valid TOML"),
        (b"\xff\xfes\x00", "is not UTF-8 text"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "bad file.toml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load_config(ToyConfig, file=path)

    assert message in caught.value.message
    assert str(path) in caught.value.message


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbfsteps = 3\r\n")

    assert load_config(ToyConfig, file=path).steps == 3


@pytest.mark.parametrize("model", [ToyConfig, FitConfig])
def test_the_description_reads_back_as_the_defaults(model, tmp_path):
    path = tmp_path / "all.toml"
    path.write_text(describe(model), encoding="utf-8")

    assert load_config(model, file=path) == model()


@pytest.mark.parametrize("preset", Preset)
@pytest.mark.parametrize("recipe", Recipe)
def test_the_description_of_a_preset_reads_back_as_it(preset, recipe, tmp_path):
    base = fit_defaults(preset, recipe)
    path = tmp_path / "preset.toml"
    path.write_text(describe(FitConfig, base), encoding="utf-8")

    assert load_config(FitConfig, file=path) == load_config(FitConfig, base=base)


def test_the_description_tells_meaning_range_and_default():
    text = describe(ToyConfig, {"size": 32})

    assert (
        "# Size of the toy.\n# int, >= 16, <= 64, a multiple of 16; default 16\nsize = 32" in text
    )
    assert '# Its form.\n# "round" | "square"; default "round"\nkind = "round"' in text
    assert "# float | nothing; default nothing\n# limit = nothing" in text
    assert "[inner]" in text


def test_every_setting_of_fit_says_what_it_means():
    assert all(setting.meaning for setting in settings_of(FitConfig))


# how fast data comes depends on what else the machine does
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.recursive(
        st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("ab \"'"), inner),
    )
)
def test_values_survive_toml(value):
    assert tomllib.loads(f"value = {toml_value(value)}") == {"value": value}
