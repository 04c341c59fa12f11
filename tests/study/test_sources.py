from __future__ import annotations

from pathlib import Path

import pytest

from tuner.errors import DataError
from tuner.study.sources import HubSource, is_hub_name, local_path, parse_hub, resolve_package


def test_hub_address_with_all_options() -> None:
    uri = "hub://owner/set?split=train%5B%3A10%5D&config=plain_text&revision=abc"
    assert parse_hub(uri) == HubSource(name="owner/set", split="train[:10]", config="plain_text", revision="abc")


@pytest.mark.parametrize("uri", ["hub://owner/set", "hub://owner/set/"])
def test_hub_address_without_options(uri: str) -> None:
    assert parse_hub(uri) == HubSource(name="owner/set", split="train")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hub://", "is no address of a hub data set"),
        ("hub://a/b/c", "is no address of a hub data set"),
        ("hub://a b", "is no address of a hub data set"),
        ("hub://a#b", "is no address of a hub data set"),
        ("hub://[a", "is no address of a hub data set"),
        ("hub://a?split", "is no address of a hub data set"),
        ("hub://a?split=", 'option "split" needs one value'),
        ("hub://a?split=x&split=y", 'option "split" needs one value'),
        ("hub://a?spilt=x", 'unknown option "spilt"; did you mean "split"?'),
        ("file.csv", "is no address of a hub data set"),
    ],
)
def test_wrong_hub_address(uri: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_hub(uri)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("name", "good"),
    [("gpt2", True), ("owner/model-1.0", True), ("a/b/c", False), ("", False), ("-a", False), ("a/", False)],
)
def test_names_on_the_hub(name: str, good: bool) -> None:
    assert is_hub_name(name) == good


def test_file_of_an_installed_package() -> None:
    assert resolve_package("package://pydantic/pydantic/main.py").is_file()
    assert local_path("package://pydantic/pydantic/main.py").name == "main.py"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "package://nothing-of-this-name/x",
            'the Python package "nothing-of-this-name" is not installed; check the name, and install it if you trust it',
        ),
        ("package://pydantik/x", 'the Python package "pydantik" is not installed; did you mean "pydantic"?'),
        ("package://pydantic/pydantic/nothing.py", 'the package "pydantic" has no file or folder pydantic/nothing.py'),
        ("package://pydantic/../../etc/passwd", "is no address of a package's file"),
        ("package://pydantic//etc/passwd", "is no address of a package's file"),
        ("package://pydantic", "is no address of a package's file"),
        ("package://pydantic/a\0b", "is no address of a package's file"),
        ("package://a b/c", "is no address of a package's file"),
    ],
)
def test_wrong_package_address(uri: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        resolve_package(uri)
    assert message in caught.value.message


def test_path_is_a_path() -> None:
    assert local_path("/a/b.csv") == Path("/a/b.csv")


def test_hub_has_no_path() -> None:
    with pytest.raises(ValueError, match="hub://a"):
        local_path("hub://a")
