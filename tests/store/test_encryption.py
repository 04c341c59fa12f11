"""TLS: a server that cannot prove who it is gets no password."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests import mariadb
from tests.postgres import PostgresServer
from tests.store.tls_server import tls_before
from tuner.errors import ConfigurationError, UnavailableError
from tuner.store.clock import read_clock
from tuner.store.database import Database
from tuner.store.encryption import Encryption, read_encryption
from tuner.store.location import parse_url
from tuner.store.tls import is_local_url, mysql_tls

NAME = "/CN=server"


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory, require_tool: Callable[[str], str]) -> Path:
    """Two authorities, and a certificate of the first for 127.0.0.1 and db.example.org alone."""
    openssl = require_tool("openssl")
    folder = tmp_path_factory.mktemp("tls")

    def _run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True)

    for name in ("ours", "theirs"):
        _run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "2",
             "-addext", "keyUsage=critical,keyCertSign", "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    _run("req", "-newkey", "rsa:2048", "-nodes", "-subj", NAME, "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:db.example.org\nauthorityKeyIdentifier=keyid\n", encoding="ascii"
    )
    _run("x509", "-req", "-in", "server.csr", "-CA", "ours.pem", "-CAkey", "ours.key", "-CAcreateserial", "-days", "2",
         "-extfile", "names", "-out", "server.pem")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def url(authorities: Path, mariadb_server: mariadb.MariaDBServer) -> Iterator[str]:
    """A MariaDB server that speaks TLS; the shared one only says that there are programs."""
    files = {name: (authorities / name).read_bytes() for name in ("server.pem", "server.key")}
    with mariadb.running_server(files=files) as server, server.database() as address:
        yield address


def test_an_authority_in_the_url_means_that_the_server_is_checked(url: str, authorities: Path) -> None:
    for options in (f"ssl_ca={authorities}/ours.pem", f"sslmode=verify-full&sslrootcert={authorities}/ours.pem"):
        with Database(parse_url(f"{url}?{options}")) as db:
            assert read_encryption(db) == Encryption(is_local=True, is_encrypted=True, is_verified=True)


@pytest.mark.parametrize(
    ("host", "authority", "message"),
    [
        ("127.0.0.1", "theirs", "certificate verify failed"),
        ("localhost", "ours", "certificate verify failed|doesn't match"),
    ],
)
def test_a_server_that_is_not_the_one_is_refused(
    url: str, authorities: Path, host: str, authority: str, message: str
) -> None:
    there = url.replace("127.0.0.1", host)
    with (
        Database(parse_url(f"{there}?sslmode=verify-full&sslrootcert={authorities}/{authority}.pem")) as db,
        pytest.raises(UnavailableError, match=message),
    ):
        read_clock(db)


def test_encryption_without_a_check_is_told_apart(url: str) -> None:
    for mode in ("require", "prefer"):
        with Database(parse_url(f"{url}?sslmode={mode}")) as db:
            assert read_encryption(db) == Encryption(is_local=True, is_encrypted=True, is_verified=False)
    with Database(parse_url(f"{url}?sslmode=disable")) as db:
        assert read_encryption(db) == Encryption(is_local=True, is_encrypted=False, is_verified=False)


@pytest.fixture
def distant(authorities: Path, postgres_server: PostgresServer) -> Iterator[Callable[..., str]]:
    """Gives the URL of a PostgreSQL with TLS that is on this machine, but called as one elsewhere is."""
    with (
        tls_before(
            postgres_server.port, certificate=authorities / "server.pem", key=authorities / "server.key"
        ) as port,
        postgres_server.database() as plain,
    ):

        def _url(host: str = "db.example.org", *, tls: bool = True, **options: str) -> str:
            there = make_url(plain).set(host=host).update_query_dict({"hostaddr": "127.0.0.1", **options})
            return (there.set(port=port) if tls else there).render_as_string(hide_password=False)

        yield _url


def encryption_of(url: str) -> Encryption:
    with Database(parse_url(url)) as db:
        return read_encryption(db)


def test_the_right_server_elsewhere_is_accepted_and_was_checked_unasked(
    distant: Callable[..., str], authorities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = Encryption(is_local=False, is_encrypted=True, is_verified=True)
    assert encryption_of(distant(sslrootcert=f"{authorities}/ours.pem")) == checked
    monkeypatch.setenv("SSL_CERT_FILE", f"{authorities}/ours.pem")  # an authority of the whole machine
    assert encryption_of(distant()) == checked
    assert encryption_of(distant(sslrootcert="system", sslmode="verify-full")) == checked


@pytest.mark.parametrize(
    ("host", "authority", "tls", "message"),
    [
        ("other.example.org", "ours", True, 'server certificate for .* does not match host name "other.example.org"'),
        ("db.example.org", "theirs", True, "certificate verify failed"),
        ("db.example.org", "", True, "certificate verify failed"),
        ("db.example.org", "ours", False, "server does not support SSL, but SSL was required"),
    ],
)
def test_who_stands_in_for_a_server_elsewhere_gets_no_password(
    distant: Callable[..., str], authorities: Path, host: str, authority: str, tls: bool, message: str
) -> None:
    options = {"sslrootcert": f"{authorities}/{authority}.pem"} if authority else {}
    with pytest.raises(UnavailableError, match=message) as caught:
        encryption_of(distant(host, tls=tls, **options))
    assert "say sslmode=disable there if you trust the whole network" in str(caught.value)
    assert caught.value.exit_code == 69


def test_less_than_a_full_check_must_be_asked_for(distant: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked = Encryption(is_local=False, is_encrypted=True, is_verified=False)
    assert encryption_of(distant(sslmode="require")) == unchecked
    in_clear = Encryption(is_local=False, is_encrypted=False, is_verified=False)
    assert encryption_of(distant(tls=False, sslmode="disable")) == in_clear
    with monkeypatch.context() as environment:
        environment.setenv("PGSSLMODE", "require")
        assert encryption_of(distant()) == unchecked


@pytest.mark.parametrize(
    ("url", "is_checked"),
    [
        ("mysql://u@db.example.org/d", True),
        ("mysql://u@10.0.0.1/d", True),
        ("mysql://u@db/d?sslmode=verify-full", True),
        ("mysql://u@db/d?sslmode=require", False),
        ("mysql://u@127.0.0.1/d", False),
    ],
)
def test_mysql_elsewhere_is_checked_as_well(url: str, is_checked: bool) -> None:
    context = mysql_tls(parse_url(url)).get("ssl")
    found = context is not None and context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    assert found is is_checked


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_a_server_without_tls_is_refused_where_it_is_demanded(
    request: pytest.FixtureRequest, kind: str, mode: str, authorities: Path
) -> None:
    address = str(request.getfixturevalue(f"{kind}_url"))
    with (
        Database(parse_url(f"{address}?sslmode={mode}&sslrootcert={authorities}/ours.pem")) as db,
        pytest.raises(UnavailableError, match="SSL"),
    ):
        read_clock(db)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("sslmode=verify-ful", 'unknown sslmode "verify-ful"; did you mean "verify-full"'),
        ("ssl_ca=/nowhere.pem", "cannot read the files of the TLS connection - No such file"),
        ("charsett=x", 'unknown option "charsett" in the URL; did you mean "charset"'),
    ],
)
def test_wrong_options_are_told(options: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Database(parse_url(f"mysql://u:s3cr3tPW@h/d?{options}"))


@pytest.mark.parametrize(
    ("address", "is_local"),
    [
        ("postgresql://u@localhost/d", True),
        ("postgresql://u@127.0.0.9/d", True),
        ("postgresql://u@[::1]/d", True),
        ("postgresql:///d?host=/run/postgresql", True),
        ("mysql://u@/d?unix_socket=/run/x", True),
        ("postgresql://u@database/d", False),
        ("mysql://u@10.0.0.1/d", False),
    ],
)
def test_what_leaves_the_machine_is_known(address: str, is_local: bool) -> None:
    assert is_local_url(parse_url(address)) is is_local


def test_only_what_leaves_the_machine_unchecked_needs_advice() -> None:
    assert Encryption(is_local=True, is_encrypted=False, is_verified=False).advice == ""
    assert Encryption(is_local=False, is_encrypted=True, is_verified=True).advice == ""
    for encrypted in (False, True):
        open_to_all = Encryption(is_local=False, is_encrypted=encrypted, is_verified=False)
        assert "sslmode=verify-full" in open_to_all.advice
