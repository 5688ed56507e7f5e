"""Public names, and the signatures of every verb, are a contract: `public_names.txt` beside this file.

After a change that is meant, run `python tests/cli/test_public_names.py` and commit the file with it.
"""

import inspect
import re
from pathlib import Path

import probes
from probes import api
from probes.cli.main import GROUPS, SUBS

CONTRACT = Path(__file__).with_name("public_names.txt")


def verbs() -> list[str]:
    alone = [verb for names in GROUPS.values() for verb in names.split()]
    return alone + [f"{sub}_{one}" for sub, (_, names) in SUBS.items() for one in names.split()]


def signatures() -> str:
    """A line per parameter: its name, kind and default. Types are read by the shell's own tests."""
    lines = []
    for where, names in (
        ("probes", sorted(set(probes.__all__) - {"__version__"})),
        ("api", sorted(verbs())),
    ):
        for name in names:
            found = getattr(probes if where == "probes" else api, name)
            lines.append(f"{where}.{name}")
            for one in inspect.signature(found).parameters.values():
                default = "" if one.default is one.empty else f" = {one.default!r}"
                star = " (keyword)" if one.kind is one.KEYWORD_ONLY else ""
                lines.append(f"    {one.name}{re.sub('0x[0-9a-f]+', '', default)}{star}")
    return "\n".join(lines) + "\n"


def test_names_and_signatures_are_as_promised() -> None:
    assert signatures() == CONTRACT.read_text(), (
        "a public signature changed: if that is meant, run python tests/cli/test_public_names.py"
    )


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", probes.__version__)


def test_every_verb_of_the_shell_is_a_function_of_api_and_is_shown() -> None:
    from probes.cli.show import SHOWN

    assert set(verbs()) | {"dry_run"} == set(SHOWN)


if __name__ == "__main__":
    CONTRACT.write_text(signatures())
