"""Forwarded ports as people write them: "8080:80", "0.0.0.0:53:5353/udp"."""

from __future__ import annotations

import ipaddress

from nexus.netd.v1 import netd_pb2
from nexusctl import protocols

_FORM = "[HOST_IP:]HOST_PORT[:GUEST_PORT][/udp], such as 8080:80 or 0.0.0.0:53:5353/udp"


def parse(what: str, text: str) -> netd_pb2.Publication:
    """Return what is to be forwarded, to no VM yet. Raises Failure (USAGE)."""
    host_ip, ports, protocol = _parts(what, text)
    if len(ports) > 2:
        raise protocols.bad(what, text, _FORM)
    numbers = [protocols.port(what, port) for port in ports]
    return netd_pb2.Publication(
        host_ip=host_ip,
        host_port=numbers[0],
        guest_port=numbers[-1],
        protocol=protocols.WORDS[protocol],
    )


def parse_host(what: str, text: str) -> netd_pb2.UnpublishPortRequest:
    """Return what is to be forwarded no more. Raises Failure (USAGE)."""
    host_ip, ports, protocol = _parts(what, text)
    if len(ports) > 1:
        raise protocols.bad(what, text, "[HOST_IP:]HOST_PORT[/udp], such as 8080 or 0.0.0.0:53/udp")
    return netd_pb2.UnpublishPortRequest(
        host_ip=host_ip,
        host_port=protocols.port(what, ports[0]),
        protocol=protocols.WORDS[protocol],
    )


def text(publication: netd_pb2.Publication) -> str:
    """Return the host's side, as `parse_host` takes it."""
    host = protocols.join_host(publication.host_ip, str(publication.host_port))
    return f"{host}/{protocols.word(publication.protocol)}"


def _parts(what: str, text: str) -> tuple[str, list[str], str]:
    """Return the host's address or "", the ports, and the protocol."""
    rest, protocol = protocols.cut_protocol(text)
    if protocol not in ("", "tcp", "udp"):
        raise protocols.bad(what, text, _FORM)
    host_ip = ""
    if rest.startswith("["):
        host_ip, rest = protocols.split_host(what, rest)
        ports = rest.split(":")
    else:
        ports = rest.split(":")
        if "." in ports[0]:
            host_ip = ports.pop(0)
    if host_ip:
        try:
            ipaddress.ip_address(host_ip)
        except ValueError:
            raise protocols.bad(what, text, f"{host_ip!r} is no address") from None
    if not ports:
        raise protocols.bad(what, text, _FORM)
    return host_ip, ports, protocol or "tcp"
