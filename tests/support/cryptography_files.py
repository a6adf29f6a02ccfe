"""Certificates for tests of mTLS, as PEM files."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def _name(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject, issuer, key):
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


def _save(path, certificate, key):
    path.with_suffix(".pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def make_ca(path):
    """Make PATH.pem and PATH.key and return the CA for `make_certificate`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(path.name)
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    certificate = (
        _builder(name, name, key)
        .add_extension(constraints, critical=True)
        .sign(key, hashes.SHA256())
    )
    _save(path, certificate, key)
    return name, key


def make_certificate(ca, path, common_name):
    """Make PATH.pem and PATH.key, signed by `ca`, good for localhost and 127.0.0.1."""
    issuer, issuer_key = ca
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    )
    certificate = (
        _builder(_name(common_name), issuer, key)
        .add_extension(names, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    _save(path, certificate, key)
