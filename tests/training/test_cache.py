from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tuner.training.cache import WarmCache, model_key, read_tensors, write_tensors


class Builder:
    """Builds values and remembers which."""

    def __init__(self) -> None:
        self.built: list[str] = []

    def of(self, key: str) -> Callable[[], str]:
        def build() -> str:
            self.built.append(key)
            return key.upper()

        return build


def test_a_value_is_built_once() -> None:
    cache, builder = WarmCache(), Builder()
    assert [cache.get(("kind", "a"), builder.of("a")) for _ in range(3)] == ["A"] * 3
    assert builder.built == ["a"]


def test_the_value_not_used_for_longest_goes_first() -> None:
    cache, builder = WarmCache(entries=2), Builder()
    for key in ("a", "b", "a", "c", "a", "c", "b"):
        cache.get(key, builder.of(key))
    assert builder.built == ["a", "b", "c", "b"]
    assert len(cache) == 2


def test_a_failed_build_leaves_nothing() -> None:
    cache = WarmCache()

    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get("key", fail)
    assert cache.get("key", lambda: 5) == 5


def test_tensors_are_found_again_unless_the_file_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "tokens-1.safetensors"
    assert read_tensors(file) is None
    write_tensors(file, {"a": torch.arange(3)})
    found = read_tensors(file)
    assert found is not None and found["a"].tolist() == [0, 1, 2]
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    file.write_bytes(file.read_bytes()[:20])
    assert read_tensors(file) is None


def test_a_model_is_another_one_when_a_file_of_its_folder_changes(tmp_path: Path) -> None:
    assert model_key("owner/model", "abc") == ("owner/model", "abc")
    (tmp_path / "inner").mkdir()
    keys = [model_key(str(tmp_path), None)]
    for name, text in (("a.safetensors", "1"), ("b.json", "1"), ("a.safetensors", "22")):
        (tmp_path / name).write_text(text)
        keys.append(model_key(str(tmp_path), None))
        assert model_key(str(tmp_path), None) == keys[-1]
    os.utime(tmp_path / "b.json", ns=(1, 1))  # of the same size
    keys.append(model_key(str(tmp_path), None))
    assert len(set(keys)) == 5
