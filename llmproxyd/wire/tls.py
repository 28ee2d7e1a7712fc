"""Whom to trust when connecting to an upstream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

_RESUMABLE: Mapping[str, Any] = MappingProxyType({"enableSessionTickets": True})
"""Twisted does without tickets, and so without resumption before TLS 1.3."""


class TLSFileError(Exception):
    """A file of certificates cannot be used; the message says which and why."""


def policy(
    *, ca_file: Path | None = None, verify: bool = True, client_cert: Path | None = None
) -> IPolicyForHTTPS:
    """How certificates of one upstream are verified.

    :param ca_file: PEM certificates trusted instead of the system's roots.
    :param verify: ``False`` takes any certificate.
    :param client_cert: PEM file with our certificate and its private key.
    :raises TLSFileError: a file cannot be read or holds no certificate.
    """
    own = None if client_cert is None else _own(client_cert)
    if not verify:
        return _Unverified(own)
    roots = ssl.platformTrust() if ca_file is None else _roots(ca_file)
    return _Verified(roots, own)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TLSFileError(f"{path}: {error.strerror}") from error


def _roots(path: Path) -> IOpenSSLTrustRoot:
    marker = b"-----BEGIN CERTIFICATE-----"
    pieces = _read(path).split(marker)[1:]
    try:
        certificates = [ssl.Certificate.loadPEM(marker + piece) for piece in pieces]
    except SSL.Error as error:
        raise TLSFileError(f"{path}: a certificate in it cannot be read") from error
    if not certificates:
        raise TLSFileError(f"{path}: holds no PEM certificate")
    roots: IOpenSSLTrustRoot = ssl.trustRootFromCertificates(certificates)
    return roots


def _own(path: Path) -> ssl.PrivateCertificate:
    try:
        own: ssl.PrivateCertificate = ssl.PrivateCertificate.loadPEM(_read(path))
    except (SSL.Error, ValueError) as error:
        raise TLSFileError(f"{path}: needs a certificate and its private key, as PEM") from error
    return own


@implementer(IPolicyForHTTPS)
class _Verified(BrowserLikePolicyForHTTPS):
    def __init__(self, roots: IOpenSSLTrustRoot, own: ssl.PrivateCertificate | None) -> None:
        super().__init__(trustRoot=roots)
        self._roots = roots
        self._own = own

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """Verification of chain and name, by service-identity."""
        return ssl.optionsForClientTLS(
            hostname.decode("ascii"),
            trustRoot=self._roots,
            clientCertificate=self._own,
            extraCertificateOptions=dict(_RESUMABLE),  # it is written to
        )


@implementer(IOpenSSLClientConnectionCreator)
class _AnyCertificate:
    def __init__(self, context: SSL.Context, hostname: bytes) -> None:
        self._context = context
        self._hostname = hostname

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """A connection that names the host but believes anyone."""
        connection = SSL.Connection(self._context, None)
        connection.set_tlsext_host_name(self._hostname)
        return connection


@implementer(IPolicyForHTTPS)
class _Unverified:
    def __init__(self, own: ssl.PrivateCertificate | None) -> None:
        key = None if own is None else own.privateKey.original
        certificate = None if own is None else own.original
        options = ssl.CertificateOptions(privateKey=key, certificate=certificate, **_RESUMABLE)
        self._context = options.getContext()
        self._context.set_verify(SSL.VERIFY_NONE, lambda *_: True)

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """No verification at all."""
        return _AnyCertificate(self._context, hostname)
