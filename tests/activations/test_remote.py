"""Stores on other file systems: pushed and fetched whole, checked, resumed, and never mixed up."""

import hashlib
import shutil
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest

from probes.activations.collect import collect
from probes.activations.format import Manifest, manifest_key
from probes.activations.maintenance import remote as remoting
from probes.activations.maintenance.remote import Remote, cached, fetch, open_store, push, staged
from probes.activations.store import ActivationStore
from probes.foundation.errors import InputError, IntegrityError, StageError
from probes.models.identity import Identity

SETTINGS = {"positions": "all", "shard_tokens": 150}
SITES = ["resid_post.0", "resid_post.1"]


@pytest.fixture(scope="module")
def finished(model, prompts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "store"
    collect(model, prompts[:8], path, sites=SITES, **SETTINGS)
    return path


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "store"))


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path) -> str:
    place = tmp_path / "remote" / "store"
    return f"memory://{uuid.uuid4().hex}/store" if request.param == "memory" else f"file://{place}"


@pytest.fixture
def uploads(monkeypatch) -> list[str]:
    """Names of the files that a test uploads."""
    sent: list[str] = []
    upload = Remote.upload
    monkeypatch.setattr(
        Remote, "upload", lambda self, *given: sent.append(given[1]) or upload(self, *given)
    )
    return sent


@pytest.fixture
def downloads(monkeypatch) -> list[str]:
    got: list[str] = []
    download = Remote.download
    monkeypatch.setattr(
        Remote, "download", lambda self, *given: got.append(given[1].file) or download(self, *given)
    )
    return got


def content(path: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in path.iterdir()}


def there(url: str) -> dict[str, bytes]:
    system, root = fsspec.core.url_to_fs(url)
    return {name.rpartition("/")[2]: system.cat_file(name) for name in system.find(root)}


def put(url: str, name: str, data: bytes) -> None:
    system, root = fsspec.core.url_to_fs(url)
    system.makedirs(root, exist_ok=True)
    system.pipe_file(f"{root}/{name}", data)


def other_bits(path: Path) -> None:
    """A shard as another machine would have made it, its record with it."""
    manifest = Manifest.from_file(path / "manifest.json")
    shard = manifest.groups[0].shards[0]
    data = bytearray((path / shard.file).read_bytes())
    data[-1] ^= 1
    (path / shard.file).write_bytes(data)
    text = manifest.to_json().replace(shard.sha256, hashlib.sha256(data).hexdigest())
    reforge(path, Manifest.model_validate_json(text))


def reforge(path: Path, manifest: Manifest) -> None:
    key = manifest_key(manifest.origin, manifest.widths, manifest.parts)
    (path / "manifest.json").write_text(manifest.model_copy(update={"key": key}).to_json())


def test_a_store_comes_back_byte_for_byte(finished, url, tmp_path):
    assert push(finished, url) == url
    assert {name: hashlib.sha256(data).hexdigest() for name, data in there(url).items()} == content(
        finished
    )
    store = fetch(url, tmp_path / "fetched").verify()
    assert content(store.path) == content(finished)


def test_an_interrupted_push_goes_on_and_the_manifest_comes_last(
    finished, url, monkeypatch, uploads
):
    names = [record.file for record in ActivationStore.open(finished).manifest.files]
    upload = Remote.upload

    def stopping(self, folder, name):
        if name == names[5]:
            raise KeyboardInterrupt
        upload(self, folder, name)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "upload", stopping)
        with pytest.raises(KeyboardInterrupt):
            push(finished, url)
    assert uploads == names[:5]
    assert "manifest.json" not in there(url)
    with pytest.raises(InputError, match=r"no finished activation store at .*: there is no"):
        fetch(url, finished.parent / "nothing")
    put(url, names[1], b"torn")
    uploads.clear()
    push(finished, url)
    assert uploads == [names[1], *names[5:], "provenance.json"]
    assert there(url).keys() == content(finished).keys()
    uploads.clear()
    push(finished, url)
    assert uploads == []


def test_a_shard_of_the_same_name_and_size_from_another_machine_is_replaced(
    finished, folder, url, tmp_path, monkeypatch
):
    """Names of shards say what they are of; two machines round differently."""
    other_bits(folder)
    upload, n_sent = Remote.upload, 0

    def stopping(self, *given):
        nonlocal n_sent
        n_sent += 1
        if n_sent > 5:
            raise KeyboardInterrupt
        upload(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "upload", stopping)
        with pytest.raises(KeyboardInterrupt):
            push(folder, url)
    push(finished, url)
    assert content(fetch(url, tmp_path / "a").verify().path) == content(finished)
    push(folder, url)
    assert content(fetch(url, tmp_path / "b").verify().path) == content(folder)


def test_files_of_unknown_origin_are_sent_again(finished, url, tmp_path):
    shard = ActivationStore.open(finished).manifest.groups[0].shards[0]
    put(url, shard.file, bytes(shard.bytes))
    push(finished, url)
    fetch(url, tmp_path / "fetched").verify()


def test_an_interrupted_fetch_goes_on(finished, url, tmp_path, monkeypatch, downloads):
    push(finished, url)
    names = [record.file for record in ActivationStore.open(finished).manifest.files]
    download = Remote.download

    def stopping(self, folder, record):
        if record.file == names[5]:
            raise KeyboardInterrupt
        download(self, folder, record)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "download", stopping)
        with pytest.raises(KeyboardInterrupt):
            fetch(url, tmp_path / "f")
    with pytest.raises(InputError, match="no finished activation store"):
        ActivationStore.open(tmp_path / "f")
    downloads.clear()
    fetch(url, tmp_path / "f").verify()
    assert downloads == names[5:]
    assert content(tmp_path / "f") == content(finished)


def test_changed_bytes_at_the_url_are_refused_and_not_kept(finished, url, tmp_path):
    push(finished, url)
    shard = ActivationStore.open(finished).manifest.groups[1].shards[0]
    data = bytearray(there(url)[shard.file])
    data[-1] ^= 1
    put(url, shard.file, bytes(data))
    with pytest.raises(IntegrityError, match=f"{shard.file} is not what its manifest says"):
        fetch(url, tmp_path / "f")
    left = {file.name for file in (tmp_path / "f").iterdir()}
    assert shard.file not in left
    assert "manifest.json" not in left
    assert not [name for name in left if name.startswith(".tmp-")]


@pytest.mark.parametrize(
    "name", ["../evil.safetensors", "/etc/evil", "sub/shard.safetensors", ".."]
)
def test_names_that_lead_out_of_the_store_are_refused(finished, folder, url, tmp_path, name):
    push(finished, url)
    shard = ActivationStore.open(finished).manifest.groups[0].shards[0].file
    text = (folder / "manifest.json").read_text().replace(shard, name)
    reforge(folder, Manifest.model_validate_json(text))
    put(url, "manifest.json", (folder / "manifest.json").read_bytes())
    with pytest.raises(IntegrityError, match="names a file") as refused:
        fetch(url, tmp_path / "deep" / "f")
    assert url in str(refused.value)
    assert not (tmp_path / "deep").exists()
    with pytest.raises(IntegrityError, match="names a file"):
        push(folder, url)


def test_a_store_is_never_replaced_by_less_or_by_another(
    finished, folder, url, model, other_model, prompts, tmp_path
):
    push(finished, url)
    collect(model, prompts, folder, sites=SITES, **SETTINGS)
    with pytest.raises(InputError, match=r"has \d+ files that .* lacks: push it"):
        fetch(url, folder)
    push(folder, url)
    with pytest.raises(InputError, match="lacks, and a push would take them"):
        push(finished, url)
    collect(other_model, prompts, tmp_path / "other", sites=SITES, **SETTINGS)
    with pytest.raises(InputError, match="differ in weights_digest"):
        push(tmp_path / "other", url)
    with pytest.raises(InputError, match="differ in weights_digest"):
        fetch(url, tmp_path / "other")
    assert content(fetch(url, tmp_path / "f").path) == content(folder)


def test_a_damaged_store_is_not_pushed(folder, url):
    shard = next(folder.glob("shard-*"))
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(IntegrityError, match=shard.name):
        push(folder, url)
    assert "manifest.json" not in there(url)


def test_a_url_is_opened_through_a_copy_that_is_fetched_once(
    finished, folder, url, model, prompts, tmp_path, downloads
):
    push(finished, url)
    cache = tmp_path / "cache"
    store = open_store(url, model.identity, cache)
    assert store.path == cached(url, cache)
    np.testing.assert_array_equal(
        store.rows(SITES[0]), ActivationStore.open(finished).rows(SITES[0])
    )
    downloads.clear()
    open_store(url, cache=cache)
    assert downloads == []
    collect(model, prompts, folder, sites=SITES, **SETTINGS)
    push(folder, url)
    assert len(open_store(url, cache=cache)) == len(prompts)
    new = {f.file for f in ActivationStore.open(folder).manifest.files}
    assert set(downloads) == new - content(finished).keys()
    next(store.path.glob("shard-*")).unlink()
    open_store(url, cache=cache).verify()
    with pytest.raises(InputError, match="of another model"):
        open_store(url, Identity(weights_digest="0" * 64), cache)
    assert open_store(finished).path == finished
    with pytest.raises(InputError, match="no finished activation store"):
        open_store(f"{url}-absent", cache=cache)


def test_the_cache_lies_where_the_desktop_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cached("memory://a").parent == tmp_path / "probes" / "stores"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cached("memory://a").parent == tmp_path / "home" / ".cache" / "probes" / "stores"
    assert cached("memory://a") == cached("memory://a/") != cached("memory://b")


def test_a_collection_into_a_url_extends_what_lies_there(
    url, model, prompts, tmp_path, passes, uploads
):
    def collected(chosen, machine):
        with staged(url, tmp_path / machine) as place:
            return collect(model, chosen, place, sites=SITES, **SETTINGS)

    collected(prompts[:8], "first")
    n_first, _ = len(passes), uploads.clear()
    collected(prompts, "second")
    store = open_store(url, cache=tmp_path / "third").verify()
    assert len(store) == len(prompts)
    assert len(passes) - n_first > 0
    assert len(uploads) == len(store.manifest.parts[1].groups) * 2 + 2 + 1
    passes.clear()
    uploads.clear()
    collected(prompts, "first")
    assert (passes, uploads) == ([], [])


def test_work_that_could_not_be_pushed_is_pushed_later(
    url, model, prompts, tmp_path, monkeypatch, passes
):
    def collected(chosen):
        with staged(url, tmp_path / "cache") as place:
            return collect(model, chosen, place, sites=SITES, **SETTINGS)

    collected(prompts[:8])
    with monkeypatch.context() as patch:
        patch.setattr(remoting, "push", lambda *_: (_ for _ in ()).throw(StageError("no network")))
        with pytest.raises(StageError):
            collected(prompts)
    passes.clear()
    collected(prompts)
    assert passes == []
    assert len(open_store(url, cache=tmp_path / "other")) == len(prompts)
    with pytest.raises(ZeroDivisionError), staged(f"{url}-2", tmp_path / "cache"):
        _ = 1 / 0
    assert there(f"{url}-2") == {}


def test_a_local_place_is_used_as_it_is(tmp_path):
    with staged(tmp_path / "s") as place:
        assert place == tmp_path / "s"
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_reached_says_what_to_do(finished):
    with pytest.raises(InputError, match=r"s3:// needs a package that is not here: .*s3fs"):
        push(finished, "s3://bucket/store")
    with pytest.raises(InputError, match=r"unknown protocol 'memry'\. Did you mean 'memory'"):
        push(finished, "memry://store")
    with pytest.raises(InputError, match="is not a URL"):
        push(finished, "some/folder")
    with pytest.raises(StageError, match="file:///dev/null/store failed"):
        push(finished, "file:///dev/null/store")
