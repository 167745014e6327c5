"""TLS for HTTP and gRPC: certificates that are read again when they change, and whose certificates are accepted.

A connection keeps what it began with; the next one gets what the files hold by then. Files that do not fit together,
as while they are being replaced one by one, change nothing: the last good ones count.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service import log
from service.config import Config
from service.errors import Refusal, StartError
from service.gateway.watched import Watch

if TYPE_CHECKING:
    import grpc

_MAX_FILE_BYTES = 1 << 20
_NAMES = ("DNS", "IP Address", "URI", "email")
_GRPC_NAMES = ("x509_common_name", "x509_subject_alternative_name")


class Certificates:
    """What the service shows its clients, and what it asks of theirs."""

    def __init__(self, config: Config, ask_clients: bool = True) -> None:
        """Raises StartError if the files are not good ones."""
        self._files = (config.tls_cert, config.tls_key, config.tls_client_ca if ask_clients else "")
        self._watch = Watch(self._files)
        self.clients = Clients(config.tls_clients) if self._files[2] else None
        """Whose certificates are accepted; None where nobody is asked for one."""
        try:
            self._context = context(*self._files)
        except (OSError, ValueError) as error:
            raise StartError(f"--tls-cert, --tls-key or --tls-client-ca: {_reason(error)}") from None

    def context(self) -> ssl.SSLContext:
        """For one new connection."""
        if self._watch.changed():
            try:
                self._context = context(*self._files)
                log.event("certificates_read")
            except (OSError, ValueError) as error:
                log.event("certificates_unreadable", severity="error", reason=_reason(error))
        return self._context


def context(certificate: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with these files. Raises OSError or ValueError."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    made.set_alpn_protocols(["http/1.1"])
    # Without a password of ours, OpenSSL would ask whoever sits at the terminal.
    made.load_cert_chain(certificate, key, password=lambda: b"")
    if client_ca:
        made.load_verify_locations(cafile=client_ca)
        made.verify_mode = ssl.CERT_REQUIRED
        # A resumed session would not look at the client's certificate again.
        made.options |= ssl.OP_NO_TICKET
        made.num_tickets = 0
    return made


def _reason(error: Exception) -> str:
    """What is wrong, for the operator."""
    if isinstance(error, ssl.SSLError):
        return f"not usable ({(error.reason or 'no certificate or key in it').lower().replace('_', ' ')})"
    return (error.strerror if isinstance(error, OSError) else None) or "not usable"


class Clients:
    """Whose certificates are accepted, among those that a trusted authority has signed."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(allowed)

    def name(self, names: Iterable[str]) -> str:
        """The name of the client whose certificate has these: the first that is allowed. Raises Refusal."""
        for name in names:
            if name and (not self._allowed or name in self._allowed):
                return name
        raise Refusal("unauthorized", "no name in the client's certificate is allowed here")


def names(certificate: Mapping[str, Any] | None) -> list[str]:
    """The names in a certificate, as Python's `getpeercert` has it: the common name first."""
    if not certificate:
        return []
    found = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return found + [value for kind, value in certificate.get("subjectAltName", ()) if kind in _NAMES]


def grpc_names(context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """The names in a certificate, as `auth_context` of gRPC has them."""
    return [value.decode("utf-8", "replace") for key in _GRPC_NAMES for value in context.get(key, ())]


def client_of(transport: asyncio.BaseTransport, clients: Clients) -> str:
    """The name of the client at the other end of a connection. Raises Refusal."""
    return clients.name(names(transport.get_extra_info("peercert")))


def grpc_credentials(config: Config) -> grpc.ServerCredentials | None:
    """What the gRPC port shows and asks for, as `Certificates` does for HTTP; None without TLS. Raises StartError."""
    if not config.tls_cert:
        return None
    import grpc

    files = (config.tls_cert, config.tls_key, config.tls_client_ca)
    watch = Watch(files)

    def current() -> grpc.ServerCertificateConfiguration:
        context(*files)
        pair = _bytes(config.tls_key), _bytes(config.tls_cert)
        authorities = _bytes(config.tls_client_ca) if config.tls_client_ca else None
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=authorities)

    def renewed() -> Any:
        """For one new connection, in a thread of gRPC's; None for no change, which its types do not know of."""
        if not watch.changed():
            return None
        try:
            return current()
        except (OSError, ValueError) as error:
            log.event("certificates_unreadable", severity="error", reason=_reason(error))
            return None

    try:
        first = current()
    except (OSError, ValueError) as error:
        raise StartError(f"--tls-cert, --tls-key or --tls-client-ca: {_reason(error)}") from None
    return grpc.dynamic_ssl_server_credentials(first, renewed, require_client_authentication=bool(config.tls_client_ca))


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_MAX_FILE_BYTES)
