"""Where the services are: from the command line, the environment or the config file.

An endpoint is `unix:DIR` (DIR/vmm/vmm.sock and so on), or `tls://HOST:PORT` (vmm at PORT, netd at
PORT + 1, gateway at PORT + 2, with certificates on both sides).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nexus_rpc.channel import ClientTls
from nexus_rpc.settings import SettingsError, load
from nexusctl.failure import USAGE, Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = "unix:/run/nexus"
SERVICES = ("vmm", "netd", "gateway")
"""In the order of their TCP ports."""
RESOLVER = "dns"
"""The resolver, which listens on the host only."""

_HIGHEST_PORT = 65535
_FORMS = "give unix:DIR or tls://HOST:PORT, by --endpoint, NEXUS_ENDPOINT or the config file"


@dataclass(frozen=True)
class Config:
    """The config file: a key left out is empty. Paths may be relative to the file."""

    endpoint: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True)
class Endpoint:
    """The gRPC target of each service by its name, and the certificates for TCP."""

    targets: Mapping[str, str]
    tls: ClientTls | None = None


def resolve(flag: str | None, environ: Mapping[str, str]) -> Endpoint:
    """Return the endpoint: `flag` (--endpoint), else NEXUS_ENDPOINT, else the config file's.

    Raises Failure (USAGE) for an endpoint, a config file or certificates that cannot be used.
    """
    path = _config_path(environ)
    try:
        config = load(Config, path)
    except SettingsError as error:
        raise Failure(
            str(error), "correct the file, or name another: NEXUS_CONFIG", USAGE
        ) from error
    text = flag or environ.get("NEXUS_ENDPOINT") or config.endpoint or DEFAULT
    scheme, _, rest = text.partition(":")
    if scheme == "unix" and rest:
        return Endpoint(
            {
                name: f"unix:{Path(rest).absolute()}/{name}/{name}.sock"
                for name in (*SERVICES, RESOLVER)
            }
        )
    if scheme == "tls" and rest.startswith("//"):
        return Endpoint(_tcp(text, rest[2:]), _tls(config, path.parent, environ))
    raise Failure(f"endpoint is {text!r}: no such form", _FORMS, USAGE)


def _config_path(environ: Mapping[str, str]) -> Path:
    named = environ.get("NEXUS_CONFIG")
    if named:
        path = Path(named)
        if not path.exists():
            raise Failure(f"NEXUS_CONFIG is {named!r}: no such file", "unset NEXUS_CONFIG", USAGE)
        return path
    own = Path(environ.get("HOME", "/")) / ".config/nexus/config.toml"
    return own if own.exists() else Path("/etc/nexus/client.toml")


def _tcp(text: str, address: str) -> dict[str, str]:
    host, _, digits = address.rpartition(":")
    port = int(digits) if digits.isascii() and digits.isdigit() else 0
    if not host or not 0 < port <= _HIGHEST_PORT - len(SERVICES) + 1:
        raise Failure(f"endpoint is {text!r}: it needs a host and a port", _FORMS, USAGE)
    return {name: f"{host}:{port + offset}" for offset, name in enumerate(SERVICES)}


def _tls(config: Config, base: Path, environ: Mapping[str, str]) -> ClientTls:
    paths = []
    for key in ("ca", "cert", "key"):
        variable = f"NEXUS_{key.upper()}"
        value = environ.get(variable, "")
        path = Path(value) if value else base / getattr(config, key)
        if not path.is_file():
            raise Failure(
                f"tls:// needs a file for {key}, and {str(path)!r} is none",
                f"set {key} in {base / 'config.toml'} or {variable}",
                USAGE,
            )
        paths.append(path)
    return ClientTls(*paths)
