"""Certificates for the test servers, from a CA that nobody else trusts."""

import datetime
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["LOOPBACK", "Certificates", "make_certificates"]

LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Certificates:
    """A CA and a server's certificate in a directory: ``ca.pem``, ``server.pem``, ``server.key``."""

    directory: Path

    @property
    def ca(self) -> Path:
        """The CA certificate that a client must trust."""
        return self.directory / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self.directory / "server.pem"

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.directory / "server.key"

    def server_context(self) -> ssl.SSLContext:
        """For a server that shows this certificate and speaks HTTP/1.1."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a client that trusts this CA and no other."""
        return ssl.create_default_context(cafile=str(self.ca))


def make_certificates(directory: Path, *, names: Sequence[str] = LOOPBACK, expired: bool = False) -> Certificates:
    """A new CA, unrelated to others, and a certificate issued by it for ``names``."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    now = datetime.datetime.now(datetime.UTC)
    days = datetime.timedelta(days=1)
    leaf = authority.issue_cert(*names, not_before=now - 7 * days, not_after=now - days if expired else now + 7 * days)
    certificates = Certificates(directory)
    authority.cert_pem.write_to_path(str(certificates.ca))
    certificates.certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(certificates.key))
    certificates.key.chmod(0o600)
    return certificates
