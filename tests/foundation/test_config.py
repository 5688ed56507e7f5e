"""Settings cannot be misspelled or changed, and two of them can be told apart."""

from pathlib import Path

import pydantic
import pytest

from probes.foundation.config import Config
from probes.foundation.errors import InputError


class Inner(Config):
    rate: float = 0.5
    steps: int = 10


class Outer(Config):
    name: str
    inner: Inner = Inner()


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="stepps"):
        Inner(stepps=3)  # type: ignore[call-arg]


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Inner().steps = 3  # type: ignore[misc]


def test_a_file_comes_back_as_it_went(tmp_path: Path) -> None:
    config = Outer(name="a", inner=Inner(rate=0.1))
    (tmp_path / "c.json").write_text(config.to_json())
    assert Outer.from_file(tmp_path / "c.json") == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "a", "innner": {}}', "innner"),
        ('{"name": "a", "inner": {"rate": "fast"}}', "rate"),
        ('{"name": ', "not JSON that can be read: Expecting value at line 1, column 10"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        Outer.from_file(tmp_path / "c.json")
    assert str(tmp_path / "c.json") in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json"):
        Outer.from_file(tmp_path / "nowhere.json")


def test_the_digest_follows_the_values_alone() -> None:
    assert Outer(name="a").digest == Outer(name="a", inner=Inner(steps=10)).digest
    others = [Outer(name="b"), Outer(name="a", inner=Inner(steps=11))]
    assert len({config.digest for config in [Outer(name="a"), *others]}) == 3


def test_differences_name_the_settings_and_both_values() -> None:
    mine, other = Outer(name="a"), Outer(name="b", inner=Inner(steps=11))
    assert mine.differences(other) == {"name": ("a", "b"), "inner.steps": (10, 11)}
    assert mine.differences(Outer(name="a")) == {}
