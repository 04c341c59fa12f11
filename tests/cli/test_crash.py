"""Secrets do not reach crash files."""

from __future__ import annotations

from pathlib import Path

from tuner.cli import crash


def test_known_secrets_are_found_in_arguments_variables_and_the_password_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("f0urth4\n", encoding="utf-8")
    secrets = crash.known_secrets(
        argv=["tuner", "--storage", "postgresql://a:one%2Ftwo@h/d", "--storage=mysql://a:other1@h/d"],
        environment={
            "MY_API_KEY": "k3y-value",
            "PATH": "/usr/bin",
            "DSN": "postgresql://u:third3@h/d",
            "OPTIONS": "postgresql://h/d?user=u&password=f%26fth5",
            "TUNER_STORAGE_PASSWORD_FILE": str(tmp_path / "password"),
        },
    )
    assert {"one%2Ftwo", "one/two", "other1", "k3y-value", "third3", "f0urth4", "f&fth5"} <= set(secrets)
    assert "/usr/bin" not in secrets


def test_redact_hides_secrets_and_users_of_urls() -> None:
    text = crash.redact("k3y-value at redis://x:unknown@host/0", secrets=["k3y-value"])
    assert text == "*** at redis://***@host/0"
