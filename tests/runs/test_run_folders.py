"""A run folder from elsewhere, with a link in it, costs its user nothing outside that folder."""

import os
from pathlib import Path

import pytest

import probes
from probes.cli.main import main
from probes.foundation.errors import InputError, IntegrityError, ProbesError
from probes.models.address import check_links, resolve
from probes.runs.folder import open_run
from probes.studies.catch.config import study_config
from probes.studies.catch.export import export

STAGES = ("1-corpus", "2-organisms", "3-behaviour", "6-patching", "7-figures", "2-organisms/base")


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What a user would not want to lose."""
    folder = tmp_path / "outside"
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "thesis.tex").write_text("mine")
    (folder / "evaluation.jsonl").write_text("mine too")
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_a_linked_stage_is_refused_and_nothing_outside_is_touched(
    tmp_path: Path, outside: Path, stage: str
) -> None:
    run = tmp_path / "run"
    open_run(run, study_config("tiny", 0))
    (run / stage).parent.mkdir(exist_ok=True)
    (run / stage).symlink_to(outside)
    before = tree(outside)
    for work in (
        lambda: probes.study(run, preset="tiny"),
        lambda: probes.train(run, preset="tiny"),
        lambda: export(run, tmp_path / "exported"),
    ):
        with pytest.raises(IntegrityError, match=f"{stage} is a link"):
            work()
    assert tree(outside) == before
    assert not (tmp_path / "exported").exists()


def test_a_run_folder_that_is_a_link_itself_is_followed(tmp_path: Path, outside: Path) -> None:
    """The user named it; but what lies there is not a run, and stays."""
    (tmp_path / "run").symlink_to(outside)
    with pytest.raises(InputError, match=r"not empty \(base, evaluation\.jsonl\).*choose another"):
        probes.study(tmp_path / "run", preset="tiny")
    assert tree(outside)["evaluation.jsonl"] == b"mine too"


def test_a_pipe_in_a_run_is_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "config.json")
    monkeypatch.setattr("sys.argv", ["probes", "train", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr().err
    assert "config.json is no plain file" in said and said.count("\n") == 1


@pytest.mark.parametrize("name", ["chat_template.jinja", "config.json", "model.safetensors"])
@pytest.mark.parametrize("how", ["link", "pipe"])
def test_a_checkpoint_holds_plain_files(tmp_path: Path, name: str, how: str) -> None:
    """The text of a file that `chat_template.jinja` was linked to became the prompt."""
    checkpoint = tmp_path / "model"
    checkpoint.mkdir()
    if how == "link":
        (checkpoint / name).symlink_to("/etc/hostname")
    else:
        os.mkfifo(checkpoint / name)
    with pytest.raises(ProbesError, match=f"{name} is (a link|no plain file)"):
        resolve(checkpoint)


def test_the_links_of_the_hubs_cache_lead_to_its_blobs_alone(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "123").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/123")
    check_links(snapshot)
    (snapshot / "tokenizer.json").symlink_to("/etc/hostname")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json is a link"):
        check_links(snapshot)
