"""Builds that are stopped, and builds that must not touch what is there."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gindex import GradientIndex
from gindex.build import vector_phase as vectors
from gindex.build.run import run_build
from gindex.build.state import building
from gindex.errors import (
    BusyError,
    CorpusChangedError,
    CorpusError,
    FormatVersionError,
    NotAnIndexError,
    SettingsMismatchError,
    StoreError,
)
from gindex.files.locks import held
from gindex.store.layout import Layout
from gindex.vectors.encoder import Encoder

GINDEX = Path(sys.executable).with_name("gindex")


@pytest.fixture(scope="session")
def phases(tmp_path_factory, corpus_file, make_config, recorder, snapshot, built) -> dict[str, int]:
    """Advances of every phase of an uninterrupted build, which equals the one that the tests share."""
    progress, folder = recorder(), tmp_path_factory.mktemp("phases") / "index"
    run_build([str(corpus_file)], folder, make_config(), progress=progress)
    assert snapshot(folder) == snapshot(built)
    return progress.advances


MAKING = ["tokenise", "fit covariances", "eigenbases", "fit eigenvalues", "vectors", "search index"]
PHASES = [*MAKING, "recall", "query curvature", "exact influence"]


def test_phases(phases):
    assert list(phases) == PHASES and all(phases.values())


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("where", ["opening", "middle", "last"])
def test_resumed_build_equals_an_uninterrupted_one(
    stopped, corpus_file, make_config, snapshot, built, phases, phase, where
):
    advance = {"opening": 0, "middle": (phases[phase] + 1) // 2, "last": phases[phase]}[where]
    folder = stopped(phase, advance)
    run_build([str(corpus_file)], folder, make_config())
    assert snapshot(folder) == snapshot(built)


@pytest.mark.parametrize("phase", ["tokenise", "fit covariances", "vectors"])
def test_resumed_build_of_a_sample(tmp_path, corpus_file, make_config, recorder, snapshot, phase):
    config = make_config()
    config = replace(config, corpus=replace(config.corpus, sample=40))
    run_build([str(corpus_file)], tmp_path / "whole", config)
    with pytest.raises(Exception, match=phase):
        run_build([str(corpus_file)], tmp_path / "index", config, progress=recorder(phase, 1))
    run_build([str(corpus_file)], tmp_path / "index", config)
    assert snapshot(tmp_path / "index") == snapshot(tmp_path / "whole")
    taken = GradientIndex.open(tmp_path / "index").ids()
    every = [json.loads(line)["id"] for line in corpus_file.read_text().splitlines()]
    assert len(taken) == 40 and taken == [each for each in every if each in taken]
    with pytest.raises(SettingsMismatchError, match="expected sample 40, found 41"):
        run_build([str(corpus_file)], tmp_path / "index", replace(config, corpus=replace(config.corpus, sample=41)))


def test_build_stopped_again_and_again(tmp_path, corpus_file, make_config, recorder, snapshot, built, phases):
    for phase in PHASES:
        with pytest.raises(Exception, match=phase):
            run_build([str(corpus_file)], tmp_path / "index", make_config(), progress=recorder(phase, 1))
    run_build([str(corpus_file)], tmp_path / "index", make_config())
    assert snapshot(tmp_path / "index") == snapshot(built)


def test_killed_process(tmp_path, corpus_file, make_config, snapshot):
    """SIGKILL, which no program can catch, as soon as the first segment is there."""
    out, config = tmp_path / "index", make_config(batch_tokens=16)
    process = subprocess.Popen(command(corpus_file, out, config), stderr=subprocess.PIPE, env=environment())
    wait_for(out / "volumes/00000/segments/00000.json", process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (out / "manifests").exists()
    first = times(out)
    assert first, "nothing was finished"
    run_build([str(corpus_file)], out, config)
    assert {name: when for name, when in times(out).items() if name in first} == first
    run_build([str(corpus_file)], tmp_path / "whole", config)
    assert snapshot(out) == snapshot(tmp_path / "whole")


def command(corpus: Path, out: Path, config: object) -> list[str]:
    """Return the command line of a build with the settings of `make_config`."""
    options = {
        "model": config.model.name,
        "device": "cpu",
        "max-tokens": config.corpus.max_tokens,
        "fit-documents": config.curvature.fit_documents,
        "dimension": config.vectors.dimension,
        "index-damping": config.curvature.index_damping,
        "rank-fraction": config.vectors.rank_fraction,
        "batch-tokens": config.batch_tokens,
    }
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [str(GINDEX), "build", str(corpus), "--out", str(out), *given]


def environment() -> dict[str, str]:
    import torch

    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while not path.exists():
        if process.poll() is not None:
            pytest.fail(f"ended too soon: {process.communicate()}")
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"no {path} in ten minutes")
        time.sleep(0.002)


def times(folder: Path) -> dict[str, int]:
    """When each finished factor file and shard was written."""
    finished = [*(folder / "factors").glob("*.safetensors")]
    volume = folder / "volumes/00000"
    for record in (volume / "segments").glob("*.json"):
        finished += [volume / file["path"] for file in json.loads(record.read_text())["files"]]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in finished}


def test_finished_work_is_not_done_again(stopped, corpus_file, make_config, monkeypatch, phases):
    folder = stopped("vectors", phases["vectors"])  # all but the last segment is published
    parts: list[int] = []
    encode_batches = Encoder.encode_batches

    def count(self: Encoder, tokens: list[object], *rest: object) -> object:
        parts.append(len(tokens))
        return encode_batches(self, tokens, *rest)

    monkeypatch.setattr(Encoder, "encode_batches", count)
    for name in ("fit_covariances", "fit_eigenvalues", "_decompose"):
        monkeypatch.setattr(f"gindex.build.fit_phase.{name}", lambda *_args, **_more: pytest.fail("fitted again"))
    monkeypatch.setattr("gindex.build.run.fill_table", lambda *_args: pytest.fail("read again"))
    before = times(folder)
    manifest = run_build([str(corpus_file)], folder, make_config())
    whole, rest = divmod(manifest.documents["parts"], manifest.volumes[0].segment_parts)
    assert len(before) == 4 + 3 * whole and rest and parts[0] == rest  # then come the queries of the fidelity
    after = times(folder)
    assert {name: after[name] for name in before} == before


def test_finished_build_is_given_back_as_it_is(built, tmp_path, corpus_file, make_config, snapshot, monkeypatch):
    folder = shutil.copytree(built, tmp_path / "index")
    (folder / "build.json").write_text("{}")  # as after a kill between the manifest and this file's removal
    monkeypatch.setattr(vectors, "VectorWriter", lambda *_: pytest.fail("written again"))
    manifest = run_build([str(corpus_file)], folder, make_config(batch_tokens=7))
    assert manifest.documents["documents"] == 150
    assert snapshot(folder) == snapshot(built)


def test_build_that_another_builder_finishes_at_any_moment(
    stopped, built, corpus_file, make_config, snapshot, monkeypatch, phases
):
    """The directory is looked at while it turns from an unfinished build into an index."""
    is_file = Path.is_file
    for look in (0, 1, 2):
        folder, looks = stopped("vectors", phases["vectors"]), iter(range(100))

        def finish_first(path: Path, folder: Path = folder, looks=looks, look: int = look) -> bool:
            if path == folder / "build.json" and next(looks) == look:
                shutil.copytree(built, folder, dirs_exist_ok=True)
                path.unlink()
            return is_file(path)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "is_file", finish_first)
            with building(Layout(folder)):
                pass
        run_build([str(corpus_file)], folder, make_config())
        assert snapshot(folder) == snapshot(built), look


# What must not happen


@pytest.fixture(params=["unfinished", "finished"])
def existing(request, tmp_path, built, stopped) -> Path:
    return shutil.copytree(built, tmp_path / "index") if request.param == "finished" else stopped("vectors", 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"dimension": 256},
        {"bits": 4},
        {"rank_fraction": 0.25},
        {"max_tokens": 16},
        {"fit_documents": 41},
        {"damping_scale": 0.2},
        {"index_damping": 1.0},
        {"text_field": "id"},
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"untrack": ("model.layers.0.*",)},
        {"track": ("model.layers.0.*",)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_settings(existing, corpus_file, make_config, snapshot, changes):
    before = snapshot(existing)
    (name,) = changes
    with pytest.raises(SettingsMismatchError, match=f"expected {name} .*give the same ones, or another `out`"):
        run_build([str(corpus_file)], existing, make_config(**changes))
    assert snapshot(existing) == before


def test_changed_corpus(existing, corpus_file, make_config, snapshot):
    before, content = snapshot(existing), corpus_file.read_text()
    try:
        corpus_file.write_text(content.replace("d0", "d-0", 1))
        with pytest.raises(CorpusChangedError, match=str(corpus_file)):
            run_build([str(corpus_file)], existing, make_config())
    finally:
        corpus_file.write_text(content)
    assert snapshot(existing) == before


def test_another_model(existing, corpus_file, make_config, snapshot, nan_model_folder):
    before = snapshot(existing)
    with pytest.raises(SettingsMismatchError, match=r"expected model \w+, found \w+"):
        run_build([str(corpus_file)], existing, make_config(name=str(nan_model_folder)))
    assert snapshot(existing) == before


def test_another_tokenizer(existing, tmp_path, corpus_file, make_config, snapshot, model_folder):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"].pop()
    path.write_text(json.dumps(content))
    before = snapshot(existing)
    with pytest.raises(SettingsMismatchError, match=r"expected tokenizer \w+, found \w+"):
        run_build([str(corpus_file)], existing, make_config(name=str(folder)))
    assert snapshot(existing) == before


def test_model_is_recorded_before_its_tokens_are_kept(tmp_path, corpus_file, make_config, nan_model_folder, stopped):
    """A kill right after the corpus is read must not let another model go on with the first one's tokens."""
    folder = stopped("fit covariances")
    with pytest.raises(SettingsMismatchError, match="expected model"):
        run_build([str(corpus_file)], folder, make_config(name=str(nan_model_folder)))


def test_same_model_elsewhere(existing, tmp_path, corpus_file, make_config, model_folder):
    moved = shutil.copytree(model_folder, tmp_path / "moved")
    run_build([str(corpus_file)], existing, make_config(name=str(moved)))


def test_corpus_that_was_refused_may_be_corrected(tmp_path, make_config, corpus_file):
    """Nothing is kept of a corpus that could not be read, so nothing holds the build to it or to its settings."""
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "index"
    corpus.write_text(corpus_file.read_text() + "{malformed\n")
    with pytest.raises(CorpusError, match=f"{corpus}:151"):
        run_build([str(corpus)], out, make_config())
    corpus.write_text(corpus_file.read_text())
    assert run_build([str(corpus)], out, make_config(dimension=256)).documents["documents"] == 150


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", "mine"),
        (".lock", "mine"),
        ("build.json", '{"scripts": {}}'),
        ("manifests/00000001.json", '{"name": "an app"}'),
    ],
)
def test_directory_of_something_else_is_left_alone(tmp_path, corpus_file, make_config, snapshot, name, content):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    (tmp_path / "other").write_text("mine too")
    before = snapshot(tmp_path)
    with pytest.raises(NotAnIndexError, match=r"expected .*, found .*; give"):
        run_build([str(corpus_file)], tmp_path, make_config())
    assert snapshot(tmp_path) == before


def test_newer_index_is_left_alone(tmp_path, built, corpus_file, make_config, snapshot):
    folder = shutil.copytree(built, tmp_path / "index")
    (folder / "manifests/00000002.json").write_text('{"format_version": 99}')
    before = snapshot(folder)
    with pytest.raises(FormatVersionError, match="install a newer gindex"):
        run_build([str(corpus_file)], folder, make_config())
    assert snapshot(folder) == before


def test_file_in_place_of_the_directory(tmp_path, corpus_file, make_config):
    out = tmp_path / "index"
    out.write_text("mine")
    with pytest.raises(NotAnIndexError, match="found a file"):
        run_build([str(corpus_file)], out, make_config())
    assert out.read_text() == "mine"


def test_directory_that_cannot_be_made(tmp_path, corpus_file, make_config):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="expected a directory to write to"):
        run_build([str(corpus_file)], tmp_path / "file" / "index", make_config())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; a file in place of a folder stands in above")
def test_read_only_directory(tmp_path, corpus_file, make_config):
    (tmp_path / "index").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="expected a directory to write to"):
        run_build([str(corpus_file)], tmp_path / "index", make_config())


def test_full_disk(tmp_path, stopped, corpus_file, make_config, monkeypatch, snapshot, built):
    folder = stopped("vectors")

    def fail(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="No space left on device"):
        patch.setattr("gindex.store.vectors.publish_written", fail)
        run_build([str(corpus_file)], folder, make_config())
    run_build([str(corpus_file)], folder, make_config())
    assert snapshot(folder) == snapshot(built)


def test_build_beside_another_writer(existing, corpus_file, make_config, snapshot):
    before = snapshot(existing)
    with held(Layout(existing).lock), pytest.raises(BusyError, match="another gindex process is writing here"):
        run_build([str(corpus_file)], existing, make_config())
    assert snapshot(existing) == before
    run_build([str(corpus_file)], existing, make_config())
