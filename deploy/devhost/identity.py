"""Keys and certificates of one dev host and of its client; made once, kept until `clean`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.command import run
from deploy.devhost.layout import ADDRESS, GRPC_PORTS, SSH_PORT

if TYPE_CHECKING:
    from pathlib import Path

_DAYS = "3650"
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
_CONFIG = "[req]\ndistinguished_name = name\n[name]\n"
"""Replaces the system's, whose extensions would come on top of ours."""


def make_identity(folder: Path) -> None:
    """Make ssh keys for both ends, a CA, and certificates for both ends."""
    ssh, tls = folder / "ssh", folder / "tls"
    for part in (ssh, tls):
        part.mkdir()
    for name in ("host_key", "client_key"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "nexus", "-f", ssh / name])
    host_key = (ssh / "host_key.pub").read_text(encoding="ascii")
    (ssh / "known_hosts").write_text(f"[127.0.0.1]:{SSH_PORT} {host_key}", encoding="ascii")
    _certificate(tls, "ca", "/CN=Nexus dev host CA", "basicConstraints=critical,CA:TRUE")
    names = f"subjectAltName=DNS:localhost,IP:127.0.0.1,IP:{ADDRESS}"
    _certificate(tls, "server", "/CN=nexus", names, "extendedKeyUsage=serverAuth", signed=True)
    _certificate(tls, "client", "/CN=client", "extendedKeyUsage=clientAuth", signed=True)


def client_config(tls: Path) -> str:
    """Return the config file by which nexusctl finds the dev host."""
    return (
        f'endpoint = "tls://127.0.0.1:{GRPC_PORTS[0]}"\n'
        f'ca = "{tls / "ca.pem"}"\n'
        f'cert = "{tls / "client.pem"}"\n'
        f'key = "{tls / "client.key"}"\n'
    )


def _certificate(
    folder: Path, name: str, subject: str, *extensions: str, signed: bool = False
) -> None:
    """Make NAME.key and NAME.pem, signed by the CA or by itself."""
    signer = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key") if signed else ()
    added = [word for extension in extensions for word in ("-addext", extension)]
    files = ("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
    request = ("openssl", "req", "-x509", "-batch", "-config", "/dev/stdin", "-days", _DAYS)
    run([*request, *_CURVE, "-subj", subject, *added, *signer, *files], stdin=_CONFIG)
