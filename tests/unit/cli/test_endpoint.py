import pytest

from nexusctl.endpoint import resolve
from nexusctl.failure import Failure


@pytest.fixture
def home(tmp_path):
    """An environment with a home, and no config of the machine's."""
    config = tmp_path / "config.toml"
    config.write_text("")
    return {"HOME": str(tmp_path), "NEXUS_CONFIG": str(config)}


def own_config(tmp_path, text):
    path = tmp_path / ".config/nexus/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_the_default_is_the_machines_own_sockets(home):
    assert resolve(None, home).targets == {
        "vmm": "unix:/run/nexus/vmm/vmm.sock",
        "netd": "unix:/run/nexus/netd/netd.sock",
        "gateway": "unix:/run/nexus/gateway/gateway.sock",
        "dns": "unix:/run/nexus/dns/dns.sock",
    }


def test_the_nearer_wins(tmp_path, home):
    del home["NEXUS_CONFIG"]
    own_config(tmp_path, 'endpoint = "unix:/config"')
    assert resolve(None, home).targets["vmm"] == "unix:/config/vmm/vmm.sock"
    home["NEXUS_ENDPOINT"] = "unix:/environment"
    assert resolve(None, home).targets["vmm"] == "unix:/environment/vmm/vmm.sock"
    assert resolve("unix:/flag", home).targets["vmm"] == "unix:/flag/vmm/vmm.sock"


def test_a_relative_directory_is_taken_from_here(home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve("unix:run", home).targets["vmm"] == f"unix:{tmp_path}/run/vmm/vmm.sock"


@pytest.mark.parametrize("host", ["vm.example", "10.0.0.1", "[::1]"])
def test_tcp_counts_up_from_the_port(home, tmp_path, host):
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(name)
        home[f"NEXUS_{name.upper()}"] = str(tmp_path / name)
    endpoint = resolve(f"tls://{host}:7700", home)
    assert endpoint.targets == {
        "vmm": f"{host}:7700",
        "netd": f"{host}:7701",
        "gateway": f"{host}:7702",
    }
    assert endpoint.tls.cert == tmp_path / "cert"


def test_certificates_stand_beside_the_config_and_the_environment_wins(home, tmp_path):
    del home["NEXUS_CONFIG"]
    path = own_config(tmp_path, 'ca = "ca"\ncert = "cert"\nkey = "key"')
    for name in ("ca", "cert", "key", "other"):
        (path.parent / name).write_text(name)
    home["NEXUS_KEY"] = str(path.parent / "other")
    tls = resolve("tls://h:1", home).tls
    assert [file.name for file in (tls.ca, tls.cert, tls.key)] == ["ca", "cert", "other"]


@pytest.mark.parametrize(
    "text",
    [
        "unix:",
        "/run/nexus",
        "tcp://h:1",
        "tls:h:1",
        "tls://h",
        "tls://:1",
        "tls://h:0",
        "tls://h:65534",
        "tls://h:x",
        "tls://h:1/",
    ],
)
def test_a_bad_endpoint_is_named(home, text):
    with pytest.raises(Failure) as caught:
        resolve(text, home)
    assert caught.value.exit_code == 2
    assert repr(text) in caught.value.message
    assert "--endpoint" in caught.value.way_out


@pytest.mark.parametrize("text", ["endpont = 'unix:/x'", "endpoint = 3", "endpoint ="])
def test_a_bad_config_is_named(home, tmp_path, text):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(Failure, match=r"config\.toml") as caught:
        resolve(None, home)
    assert caught.value.exit_code == 2


def test_a_config_that_was_named_must_be_there(home):
    with pytest.raises(Failure, match="/nothing/here"):
        resolve(None, home | {"NEXUS_CONFIG": "/nothing/here"})


def test_tcp_without_certificates_says_what_to_set(home):
    with pytest.raises(Failure, match="file for ca") as caught:
        resolve("tls://h:1", home)
    assert "NEXUS_CA" in caught.value.way_out
