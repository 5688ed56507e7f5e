"""What a model says may neither steer the screen nor compute in a spreadsheet."""

import io
from pathlib import Path

import pandas as pd
import pytest

from probes.foundation.tables import read_csv, read_table, to_csv, write_table
from probes.foundation.terminal import one_line, plain, say


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J", "\x1b]52;c;aGk=\x07", "a\rb", "\x9b31m", "a\x08b", "\x00", "\x7f", "\u202eevil",
        "\u2066x", "\ud800", "\u2028",
    ],
)  # fmt: skip
def test_control_characters_are_shown_as_escapes(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say("model", text)
    shown = capsys.readouterr().out
    assert shown.rstrip("\n").isprintable()
    assert "\\" in shown
    assert plain(f"tab\t, line\n, ünï — {text}").startswith("tab\t, line\n, ünï — ")
    assert one_line(f" one\n two {text}").startswith("one two ")


TEXTS = [
    "=cmd|' /C calc'!A0", "+1+cmd|x", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "'=1", "''=1",
    "'plain", "plain", "a=b", "-", "---",
]  # fmt: skip


def test_no_text_is_a_formula_and_every_text_comes_back(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": TEXTS, "=head()": range(len(TEXTS)), "x": -1.5})
    write_table(tmp_path / "t.csv", table)
    cells = pd.read_csv(tmp_path / "t.csv")
    assert not [
        cell for cell in [*cells["text"], *cells.columns] if cell[0] in "=+-@\t\r\n＝＋－＠"
    ]
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), table)
    assert read_csv(io.StringIO(to_csv(table)))["text"].tolist() == TEXTS  # type: ignore[arg-type]


def test_numbers_stay_numbers() -> None:
    table = pd.DataFrame({"x": [-1.5, 2e-9], "text": ["-3", "+1e-5"], "b": [True, False]})
    assert to_csv(table) == "x,text,b\n-1.5,-3,True\n2e-09,+1e-5,False\n"
    mixed = pd.DataFrame({"value": pd.Series([-1, "=x", None], dtype=object)})
    assert to_csv(mixed) == 'value\n-1\n\'=x\n""\n'
