"""Ways to the services, and what is said when there is none."""

import os
import socket
import stat

import grpc
import pytest
from cryptography_files import make_ca, make_certificate
from fake_services import serve
from free_port import free_port


@pytest.fixture
def pki(tmp_path):
    """Certificates as at an installation, and a client of somebody else's."""
    directory = tmp_path / "pki"
    directory.mkdir()
    ca = make_ca(directory / "ca")
    make_certificate(ca, directory / "server", "server")
    make_certificate(ca, directory / "client", "client")
    make_certificate(make_ca(directory / "other"), directory / "stranger", "stranger")
    return directory


@pytest.fixture
async def tcp(fakes, pki):
    """The services on TCP with mTLS; the endpoint of them."""
    first = free_port(3)
    offsets = {"vmm": 0, "netd": 1, "gateway": 2}
    credentials = grpc.ssl_server_credentials(
        [((pki / "server.key").read_bytes(), (pki / "server.pem").read_bytes())],
        root_certificates=(pki / "ca.pem").read_bytes(),
        require_client_auth=True,
    )

    def listen(name, server):
        if name in offsets:  # the resolver listens on the host only
            server.add_secure_port(f"127.0.0.1:{first + offsets[name]}", credentials)

    async with serve(fakes, listen):
        yield f"tls://127.0.0.1:{first}"


def by_environment(pki, who="client"):
    return {
        "NEXUS_CA": str(pki / "ca.pem"),
        "NEXUS_CERT": str(pki / f"{who}.pem"),
        "NEXUS_KEY": str(pki / f"{who}.key"),
    }


async def test_mtls_with_the_certificates_of_the_environment(nexusctl, tcp, pki, fakes):
    done = await nexusctl("--endpoint", tcp, "status", env=by_environment(pki))
    assert done.code == 0, done
    assert done.out.decode().count("serving") == 3
    done = await nexusctl("vm", "create", "hello", "--endpoint", tcp, env=by_environment(pki))
    assert done.code == 0, done.err


async def test_mtls_by_the_config_file(nexusctl, tcp, pki, fakes):
    config = pki / "client.toml"
    config.write_text(
        f'endpoint = "{tcp}"\nca = "ca.pem"\ncert = "client.pem"\nkey = "client.key"\n'
    )
    done = await nexusctl("vm", "list", env={"NEXUS_CONFIG": str(config), "NEXUS_ENDPOINT": ""})
    assert done.code == 0, done.err


async def test_a_client_of_another_ca_is_refused(nexusctl, tcp, pki):
    done = await nexusctl("--endpoint", tcp, "vm", "list", env=by_environment(pki, "stranger"))
    assert done.code == 3
    assert "check ca, cert and key" in done.err


async def test_a_server_of_another_ca_is_refused(nexusctl, tcp, pki):
    environment = by_environment(pki) | {"NEXUS_CA": str(pki / "other.pem")}
    done = await nexusctl("--endpoint", tcp, "vm", "list", env=environment)
    assert done.code == 3
    assert "check ca, cert and key" in done.err


async def test_no_certificates(nexusctl, tcp):
    done = await nexusctl("--endpoint", tcp, "vm", "list")
    assert done.code == 2
    assert "NEXUS_CA" in done.err


async def test_a_key_that_cannot_be_read(nexusctl, tcp, pki):
    environment = by_environment(pki) | {"NEXUS_KEY": str(pki / "client.pem")}
    done = await nexusctl("--endpoint", tcp, "vm", "list", env=environment)
    assert done.code == 3
    assert "Traceback" not in done.err


async def test_nobody_at_the_port(nexusctl, pki):
    endpoint = f"tls://127.0.0.1:{free_port(3)}"
    done = await nexusctl("--endpoint", endpoint, "vm", "list", env=by_environment(pki))
    assert done.code == 3
    assert "refuses" in done.err


async def test_no_socket(nexusctl, tmp_path):
    done = await nexusctl("--endpoint", f"unix:{tmp_path}/none", "vm", "list")
    assert done.code == 3
    assert f"vmm is not running: there is no socket {tmp_path}/none/vmm/vmm.sock" in done.err
    assert "try: systemctl status nexus-vmm" in done.err


async def test_a_socket_that_nobody_serves(nexusctl, served, tmp_path):
    await served.stop("vmm")
    path = tmp_path / "vmm/vmm.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    done = await nexusctl("vm", "list")
    assert done.code == 3
    assert "vmm is not running" in done.err


async def test_a_socket_of_a_group_that_one_is_not_in(nexusctl, tmp_path, fakes):
    _open_to_all(tmp_path)
    (tmp_path / "vmm").chmod(0o700)
    # Root passes every check; somebody else must ask.
    options = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
    done = await nexusctl("vm", "list", cwd="/", env={"USER": "ada"}, **options)
    (tmp_path / "vmm").chmod(0o755)
    assert done.code == 3, done.err
    assert "that takes the group nexus-vmm" in done.err
    assert "try: sudo usermod -aG nexus-vmm ada, then log in again" in done.err
    assert fakes.calls == []


def _open_to_all(path):
    while path.stat().st_uid == os.geteuid() and path.parent != path and path.name:
        if path.stat().st_mode & stat.S_IRWXU == stat.S_IRWXU and "pytest" in str(path):
            path.chmod(0o755)
        path = path.parent


async def test_silence_is_not_told_as_a_service_that_is_down(nexusctl, served, tmp_path):
    await served.stop("vmm")
    path = tmp_path / "vmm/vmm.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen()
        done = await nexusctl("status", "--json")
    assert done.code == 3
    row = done.json["services"]["vmm"]
    assert row["health"] == "no answer"
    assert "not running" not in row["note"]
