"""Whether what goes to the database and comes back can be read or changed on its way."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from tuner.store.tls import is_local_url
from tuner.store.transactions import Transactions


@dataclass(frozen=True, kw_only=True, slots=True)
class Encryption:
    """How a connection is protected.

    Attributes:
        is_local: It does not leave this machine: a file, a socket, the loopback address.
        is_encrypted: TLS is spoken.
        is_verified: The server had to show a certificate that is its own, so that nobody else can stand in for it.
    """

    is_local: bool
    is_encrypted: bool
    is_verified: bool

    @property
    def advice(self) -> str:
        """What to do; empty if nothing."""
        if self.is_local or self.is_verified:
            return ""
        return "say sslmode=verify-full in the URL, and sslrootcert=FILE where the authority is your own"

    def __str__(self) -> str:
        if self.is_verified:
            return "encrypted, and the server's certificate was checked"
        if self.is_encrypted:
            return "encrypted, but anybody could stand in for the server: its certificate was not checked"
        return "not encrypted" + (", and does not leave this machine" if self.is_local else "")


def read_encryption(db: Transactions) -> Encryption:
    """How the connection to a database is protected.

    Raises:
        UnavailableError: If it cannot be reached.
    """
    is_local = is_local_url(db.url)
    if db.dialect == "sqlite":
        return Encryption(is_local=True, is_encrypted=False, is_verified=False)

    def _read(tx: Connection) -> Encryption:
        raw: Any = tx.connection.driver_connection
        if db.dialect == "postgresql":
            mode = db.url.query.get("sslmode") or raw.info.get_parameters().get("sslmode")
            encrypted = bool(raw.pgconn.ssl_in_use)
            return Encryption(
                is_local=is_local, is_encrypted=encrypted, is_verified=encrypted and mode == "verify-full"
            )
        context = getattr(raw._sock, "context", None)  # noqa: SLF001 - the driver does not say it otherwise
        return Encryption(
            is_local=is_local,
            is_encrypted=context is not None,
            is_verified=context is not None and context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname,
        )

    return db.read(_read)
