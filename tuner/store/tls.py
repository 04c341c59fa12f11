"""TLS: whoever stands in for a database on another machine must not get its password.

A connection that leaves this machine is encrypted and the server has to prove who it is, unless the URL says otherwise in
libpq's words, which serve MySQL and MariaDB, too.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from tuner.errors import ConfigurationError
from tuner.study.names import did_you_mean

SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
"""As in libpq."""

SSL_FILES = {"sslrootcert": "ssl_ca", "sslcert": "ssl_cert", "sslkey": "ssl_key"}
"""Libpq's names for the files of a connection, and those that MySQL's drivers use."""


def is_local_url(url: URL) -> bool:
    """Whether a URL names this machine."""
    host = url.host or str(url.query.get("host", ""))
    if not host or host.startswith("/") or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def postgresql_tls(url: URL) -> dict[str, str]:
    """What libpq is told besides the URL: a full check where neither URL nor environment say how much."""
    said = url.query.get("sslmode") or os.environ.get("PGSSLMODE")
    told = {} if said or is_local_url(url) else {"sslmode": "verify-full"}
    authority = url.query.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    own = Path("~/.postgresql/root.crt").expanduser()  # libpq's own default
    # The driver's wheel looks for the system's authorities where its own OpenSSL was built, which is nowhere.
    if authority == "system" or (told and not authority and not own.exists()):
        told["sslrootcert"] = ssl.get_default_verify_paths().cafile or "system"
    return told


def mysql_tls(url: URL) -> dict[str, Any]:
    """The arguments of MySQL's driver; whoever names an authority wants the server checked against it.

    Raises:
        ConfigurationError: If the URL asks for what does not exist.
    """
    given = {key: value for key, value in url.query.items() if isinstance(value, str)}
    files = {new: given.get(new) or given.get(old) for old, new in SSL_FILES.items()}
    is_checked = bool(files["ssl_ca"]) or not is_local_url(url)
    mode = given.get("sslmode") or ("verify-full" if is_checked else "prefer")
    if mode not in SSL_MODES:
        raise ConfigurationError(f'storage: unknown sslmode "{mode}"{did_you_mean(mode, SSL_MODES)}')
    if mode == "disable":
        return {"ssl_disabled": True}
    if mode == "prefer":
        return {}
    authority = None if files["ssl_ca"] == "system" else files["ssl_ca"]
    try:
        context = ssl.create_default_context(cafile=authority)
        if files["ssl_cert"]:
            context.load_cert_chain(files["ssl_cert"], files["ssl_key"])
    except OSError as error:
        raise ConfigurationError(
            "storage: cannot read the files of the TLS connection", why=error.strerror or str(error)
        ) from error
    if mode != "verify-full":
        context.check_hostname = False
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}
