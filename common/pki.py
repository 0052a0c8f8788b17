"""Certificates: a small private CA, and TLS contexts for both ends.

Keys are P-256. An ``Authority`` lives in a directory (``ca.crt``, ``ca.key``); leaf certificates
carry who they are: the common name and organisations (as Kubernetes reads a client's user and
groups) and DNS names (an agent's identity). Private keys are written with mode 0600.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = dt.timedelta(days=3650)
LEAF_LIFE = dt.timedelta(days=365)
RENEW_BEFORE = dt.timedelta(days=30)
_SKEW = dt.timedelta(minutes=5)
"""Certificates are valid a little before now, for clocks that are behind."""


@dataclass(frozen=True)
class CertPair:
    """Paths of a PEM certificate and its PEM key."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Peer:
    """Who a verified client certificate says its holder is."""

    common_name: str
    organizations: frozenset[str]
    dns: frozenset[str]


@dataclass(frozen=True)
class Authority:
    """A certificate authority kept in a directory."""

    directory: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def ca(self) -> Path:
        """The CA certificate that peers trust."""
        return self.directory / "ca.crt"

    @classmethod
    def create(cls, directory: Path, name: str = "kumulus-ca") -> Authority:
        """The authority in ``directory``, made if there is none."""
        if (directory / "ca.crt").exists():
            return cls.load(directory)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name, ())
        certificate = (
            _builder(subject, subject, key, CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        # The certificate is written last: it marks a complete authority.
        _write(directory / "ca.key", _pem(key), 0o600)
        _write(directory / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return cls(directory, certificate, key)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Raises FileNotFoundError if ``directory`` holds no authority."""
        certificate = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{directory / 'ca.key'} holds no elliptic-curve key")
        return cls(directory, certificate, key)

    def issue(
        self,
        directory: Path,
        stem: str,
        *,
        common_name: str,
        organizations: Iterable[str] = (),
        dns: Iterable[str] = (),
        ips: Iterable[str] = (),
        server: bool = False,
        client: bool = False,
    ) -> CertPair:
        """``stem``.crt and ``stem``.key in ``directory``.

        What is there already is kept while it is from this CA, says the same and is valid for
        another month.
        """
        pair = CertPair(directory / f"{stem}.crt", directory / f"{stem}.key")
        subject = _subject(common_name, organizations)
        names = _alternatives(dns, ips)
        if self._still_good(pair, subject, names):
            return pair
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, self.certificate.subject, key, LEAF_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_purposes(server, client)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        _write(pair.key, _pem(key), 0o600)
        _write(pair.cert, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return pair

    def _still_good(
        self, pair: CertPair, subject: x509.Name, names: list[x509.GeneralName]
    ) -> bool:
        if not (pair.cert.exists() and pair.key.exists()):
            return False
        found = x509.load_pem_x509_certificate(pair.cert.read_bytes())
        try:
            found.verify_directly_issued_by(self.certificate)
        except Exception:  # any failure to verify means: not ours
            return False
        there: list[x509.GeneralName] = []
        with contextlib.suppress(x509.ExtensionNotFound):
            there = list(
                found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            )
        lasts = found.not_valid_after_utc - dt.datetime.now(dt.UTC) > RENEW_BEFORE
        return lasts and found.subject == subject and there == names


def server_context(
    pair: CertPair, ca: Path, *, client_certificates: Literal["none", "optional", "required"]
) -> ssl.SSLContext:
    """TLS for a server. ``optional``: a certificate is verified if one is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pair.cert, pair.key)
    context.load_verify_locations(ca)
    context.verify_mode = {
        "none": ssl.CERT_NONE,
        "optional": ssl.CERT_OPTIONAL,
        "required": ssl.CERT_REQUIRED,
    }[client_certificates]
    return context


def client_context(ca: Path, pair: CertPair | None) -> ssl.SSLContext:
    """TLS for a client that trusts ``ca`` alone and shows ``pair`` if it has one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca)
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


def peer_of(request: web.BaseRequest) -> Peer | None:
    """Who the client of a TLS request is; None without a client certificate."""
    transport = request.transport
    found = transport.get_extra_info("peercert") if transport is not None else None
    return _peer(found) if found else None


def _peer(certificate: dict[str, Any]) -> Peer:
    subject = [pair for group in certificate.get("subject", ()) for pair in group]
    names = certificate.get("subjectAltName", ())
    return Peer(
        common_name=next((value for key, value in subject if key == "commonName"), ""),
        organizations=frozenset(value for key, value in subject if key == "organizationName"),
        dns=frozenset(value for key, value in names if key == "DNS"),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(common_name: str, organizations: Iterable[str]) -> x509.Name:
    return x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _alternatives(dns: Iterable[str], ips: Iterable[str]) -> list[x509.GeneralName]:
    return [
        *(x509.DNSName(name) for name in dns),
        *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips),
    ]


def _purposes(server: bool, client: bool) -> list[x509.ObjectIdentifier]:
    wanted = ((server, ExtendedKeyUsageOID.SERVER_AUTH), (client, ExtendedKeyUsageOID.CLIENT_AUTH))
    return [purpose for want, purpose in wanted if want]


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Atomically, never readable by others for a moment."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    scratch.replace(path)
