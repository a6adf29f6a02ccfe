"""The dev host's files, as other users of the machine see them."""

import stat

import pytest

from deploy.devhost import build
from deploy.devhost.layout import Layout


class StopError(Exception):
    """As far as the test goes."""


def test_the_machines_keys_and_disks_are_its_owners_alone(tmp_path, monkeypatch):
    def stop(*_):
        raise StopError

    monkeypatch.setattr(build, "stage", stop)
    layout = Layout(cache=tmp_path)
    layout.home.mkdir(mode=0o755)
    with pytest.raises(StopError):
        build.build(layout)
    assert stat.S_IMODE(layout.home.stat().st_mode) == 0o700
