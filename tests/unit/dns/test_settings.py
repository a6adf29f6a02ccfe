"""Settings of the resolver."""

import pytest

from nexus_dns.settings import Settings
from nexus_rpc.settings import SettingsError, load


def test_defaults_are_those_of_netds_rules():
    assert Settings().port == 7753
    assert str(Settings().server.runtime_dir) == "/run/nexus/dns"


@pytest.mark.parametrize("text", ["port = 0", "port = 65536", 'port = "53"', "listen = 1"])
def test_what_cannot_be(tmp_path, text):
    (tmp_path / "dns.toml").write_text(text)
    with pytest.raises(SettingsError, match="port"):
        load(Settings, tmp_path / "dns.toml")
