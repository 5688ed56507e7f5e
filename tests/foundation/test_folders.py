"""Nothing outside a named folder is touched, whatever lies in it and whatever its manifest names."""

import json
import os
from pathlib import Path

import pytest

from probes.foundation import folders
from probes.foundation.artifact import (
    MANIFEST,
    building,
    is_finished,
    read_manifest,
    verify,
    write_text,
)
from probes.foundation.digest import digest_bytes
from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.folders import beside, check_tree, inside, output_folder


def build(path: Path, text: str = "one") -> Path:
    with building(path, kind="test", key="k") as folder:
        (folder / "a.txt").write_text(text)
    return path


def edit(path: Path, files: object) -> None:
    """Let the manifest of an artifact name other files."""
    found = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**found, "files": files}))


NAMES = [
    "../outside.txt", "deep/../../outside.txt", "/etc/hostname", "..", ".", "", "./a.txt", "a//b",
    "a\x00b", "a\nb", "C:\\windows", "c:/windows", "..\\outside.txt", "a/" + "b" * 300, "\x1b[2J",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_is_refused_before_anything_is_read(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(IntegrityError, match="manifest that names"):
        inside(tmp_path, name)
    (tmp_path / "outside.txt").write_text("one")
    edit(build(tmp_path / "x"), {name: [digest_bytes(b"one"), 3]})
    with pytest.raises(IntegrityError, match="manifest that names"):
        verify(tmp_path / "x")


def test_names_below_are_taken_and_links_on_the_way_are_not(tmp_path: Path) -> None:
    assert inside(tmp_path, "tables/rows.csv") == tmp_path / "tables" / "rows.csv"
    (tmp_path / "tables").symlink_to("/etc")
    with pytest.raises(IntegrityError, match="tables is a link"):
        inside(tmp_path, "tables/hostname")


def swap(path: Path, how: str, outside: Path) -> None:
    path.unlink()
    match how:
        case "link":
            path.symlink_to(outside)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()


@pytest.mark.parametrize("how", ["link", "pipe", "folder"])
@pytest.mark.parametrize("victim", ["a.txt", MANIFEST])
def test_what_is_no_plain_file_is_refused_without_a_wait(
    tmp_path: Path, how: str, victim: str
) -> None:
    """A link to the very same bytes too: what is verified is what lies here. A pipe would never end."""
    path = build(tmp_path / "x")
    outside = tmp_path / "outside"
    outside.write_bytes((path / victim).read_bytes())
    swap(path / victim, how, outside)
    with pytest.raises(IntegrityError, match=r"(a link|no plain file)"):
        is_finished(path, "k")
    if how != "folder":
        with pytest.raises(IntegrityError):
            check_tree(tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "names no files"),
        ({"a.txt": ["0" * 64, -1]}, "was changed"),
        ({"a.txt": ["no digest", 3]}, "was changed"),
        ({"a.txt": [digest_bytes(b"one"), "many"]}, "not as this package writes it"),
        ({"a.txt": None}, "not as this package writes it"),
        (["a.txt"], "not as this package writes it"),
        ("a.txt", "not as this package writes it"),
    ],
)
def test_a_manifest_of_odd_content_is_one_line(tmp_path: Path, files: object, said: str) -> None:
    path = build(tmp_path / "x")
    edit(path, files)
    with pytest.raises(IntegrityError, match=said) as caught:
        verify(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"{", b"[]", b"[" * 100_000, b"null"])
def test_a_manifest_that_is_none_is_one_line(tmp_path: Path, data: bytes) -> None:
    path = build(tmp_path / "x")
    (path / MANIFEST).write_bytes(data)
    with pytest.raises(IntegrityError, match="not as this package writes it") as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_added_later_is_refused(tmp_path: Path) -> None:
    """A loader would pick up a chat template by its name, though no manifest answers for it."""
    path = build(tmp_path / "x")
    (path / "chat_template.jinja").write_text("{{ 'evil' }}")
    with pytest.raises(IntegrityError, match=r"chat_template\.jinja is not in artifact\.json"):
        verify(path)


def test_what_others_wrote_is_never_replaced(tmp_path: Path) -> None:
    """`evaluate --out home` deleted the home folder."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"did not write \(thesis\.tex\)"):
        build(home)
    assert (home / "thesis.tex").read_text() == "mine"
    build(tmp_path / "x")
    (tmp_path / "x" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        build(tmp_path / "x", "two")
    assert (tmp_path / "x" / "notes.txt").read_text() == "mine"
    (tmp_path / "link").symlink_to(home)
    with pytest.raises(InputError, match="a file or a link"):
        build(tmp_path / "link")


def test_removing_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    build(tmp_path / "x")
    (tmp_path / "y").mkdir()
    for link in (tmp_path / "link", tmp_path / "y" / "link"):
        link.symlink_to(tmp_path / "x")
    folders.remove(tmp_path / "link")
    folders.remove(tmp_path / "y")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]
    verify(tmp_path / "x")


@pytest.mark.parametrize("name", ["n" * 240, "n" * 255, "ü" * 127, "[ab]*?"])
def test_a_long_or_odd_name_can_be_built_and_cleaned_up(tmp_path: Path, name: str) -> None:
    build(tmp_path / name)
    (left,) = (beside(tmp_path / name, ".tmp-", "-1-0123abcd"),)
    left.mkdir()
    with building(tmp_path / name, kind="test", key="k") as folder:
        write_text(folder / ("f" * 250), "one")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    verify(tmp_path / name)
    assert beside(Path("a" * 250), "").name != beside(Path("a" * 251), "").name


def test_folders_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert output_folder("~/new/run") == tmp_path / "new" / "run"
    assert output_folder(tmp_path / "link") == tmp_path / "real"
    for out, said in {
        "": "no folder",
        " ": "no folder",
        "a\0b": "no folder",
        str(tmp_path / "file"): "file is no folder",
        str(tmp_path / "file" / "below"): "lies below .*file, which is no folder",
        str(tmp_path / "dangling"): "a link to nowhere, which is not there",
        str(tmp_path / ("n" * 256)): "a name of 256 bytes",
        "~nobody-of-that-name/x": "Write the path in full",
    }.items():
        with pytest.raises(InputError, match=said):
            output_folder(out)
