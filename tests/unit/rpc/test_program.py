from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nexus_rpc import program
from nexus_rpc.server import ServerSettings


@dataclass(frozen=True)
class Settings:
    server: ServerSettings = field(default_factory=lambda: ServerSettings(Path("/run/sample")))


@pytest.fixture
def served(monkeypatch):
    calls = []

    def main(name, settings, compose):
        calls.append((name, settings, compose))
        return 0

    monkeypatch.setattr("nexus_rpc.server.main", main)
    return calls


def run(monkeypatch, file, text):
    file.write_text(text)
    monkeypatch.setattr("sys.argv", ["nexus-sample", "--config", str(file)])
    return program.run("sample", Settings, lambda settings: settings)


def test_the_composition_gets_the_settings_of_the_file(monkeypatch, tmp_path, served):
    assert run(monkeypatch, tmp_path / "x.toml", '[server]\nlog_level = "debug"\n') == 0
    ((name, settings, compose),) = served
    assert (name, settings) == ("sample", ServerSettings(Path("/run/sample"), log_level="debug"))
    assert compose() == Settings(settings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('log_level = "loud"', "log_level is 'loud': expected one of debug,"),
        ('metrics_listen = "0.0.0.0:9700"', "metrics_listen is '0.0.0.0:9700'"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_nothing_is_served(
    monkeypatch, tmp_path, served, capsys, text, says
):
    assert run(monkeypatch, tmp_path / "x.toml", f"[server]\n{text}\n") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"nexus-sample: {tmp_path}/x.toml: server: ")
    assert says in error
    assert served == []
