from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nexus_rpc.settings import SettingsError, check_loopback, load


@dataclass(frozen=True)
class Inner:
    listen: str
    port: int = 1


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    wait: float = 1.0
    on: bool = False
    home: Path = Path("/nowhere")
    dns: tuple[str, ...] = ("1.1.1.1",)
    inner: Inner | None = None
    served: Inner = field(default_factory=lambda: Inner("here", 7))

    def __post_init__(self) -> None:
        if self.wait < 0:
            raise ValueError("wait is below 0: give seconds")


def _load(tmp_path, text):
    path = tmp_path / "x.toml"
    path.write_text(text)
    return load(Outer, path)


def test_no_file_gives_the_defaults(tmp_path):
    assert load(Outer, tmp_path / "none.toml") == Outer()


def test_every_kind_of_value(tmp_path):
    text = 'name="n"\nwait=2\non=true\nhome="/h"\ndns=["9.9.9.9"]\n[inner]\nlisten="l"\n'
    assert _load(tmp_path, text) == Outer("n", 2.0, True, Path("/h"), ("9.9.9.9",), Inner("l"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nmae='x'", "unknown key 'nmae'"),
        ("name=1", "name is 1: expected str"),
        ("on=1", "on is 1: expected bool"),
        ("wait='1'", "wait is '1'"),
        ("dns=[1]", "dns is 1"),
        ("wait=-1", "wait is below 0"),
        ("[inner]\nport=2", "listen"),
        ("[inner]\nlisten='l'\nprot=2", "unknown key 'prot'"),
        ("name=", "x.toml"),
    ],
)
def test_mistakes_are_named(tmp_path, text, says):
    with pytest.raises(SettingsError, match=says):
        _load(tmp_path, text)


def test_a_nested_table_keeps_the_defaults_of_what_it_leaves_out(tmp_path):
    assert _load(tmp_path, "[served]\nport=8").served == Inner("here", 8)


@pytest.mark.parametrize("listen", ["", "127.0.0.1:9700", "[::1]:9700"])
def test_loopback(listen):
    check_loopback("listen", listen)


@pytest.mark.parametrize("listen", ["0.0.0.0:9700", "127.0.0.1", "127.0.0.1:", "9700"])
def test_no_loopback(listen):
    with pytest.raises(ValueError, match=r"listen is .*: expected 127\.0\.0\.1:PORT"):
        check_loopback("listen", listen)
