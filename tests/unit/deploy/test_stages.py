"""Stages are built once for each key, and whole or not at all."""

import pytest

from deploy.stages import digest, stage, stamp


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a").write_text("one")
    return folder


@pytest.mark.parametrize("function", [lambda path: digest([path]), lambda path: stamp([path])])
def test_every_change_of_a_source_changes_its_hash(source, function):
    seen = [function(source)]
    for change in (
        lambda: (source / "a").write_text("other"),
        lambda: (source / "b").write_text(""),
        lambda: (source / "b").rename(source / "c"),
    ):
        change()
        seen.append(function(source))
    assert len(set(seen)) == len(seen)
    assert function(source) == seen[-1]


def test_the_mode_and_the_words_count_and_bytecode_does_not(source):
    before = digest([source])
    assert digest([source], "word") != before
    (source / "__pycache__").mkdir()
    (source / "__pycache__/a.pyc").write_text("x")
    assert digest([source]) == before
    (source / "a").chmod(0o755)
    assert digest([source]) != before


def test_a_stage_is_built_once_for_a_key(tmp_path):
    built = []

    def build(at):
        built.append(at)
        (at / "result").write_text("r")

    first = stage(tmp_path, "base", "1", build)
    assert stage(tmp_path, "base", "1", build) == first
    assert (first / "result").read_text() == "r"
    assert len(built) == 1

    second = stage(tmp_path, "base", "2", build)
    assert second != first
    assert not first.exists()


def test_a_failed_stage_leaves_the_old_result_and_is_built_again(tmp_path):
    old = stage(tmp_path, "base", "1", lambda at: (at / "old").touch())

    def fail(at):
        (at / "half").touch()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        stage(tmp_path, "base", "2", fail)
    assert (old / "old").exists()
    new = stage(tmp_path, "base", "2", lambda at: (at / "new").touch())
    assert [path.name for path in new.iterdir()] == ["new"]
