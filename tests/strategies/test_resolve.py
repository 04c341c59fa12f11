from __future__ import annotations

import subprocess
import sys

import pytest

from tuner.errors import NotFoundError, UsageError
from tuner.strategies import STRATEGIES, resolve


def test_a_single_name_is_the_registered_strategy() -> None:
    assert resolve("lora") is STRATEGIES["lora"]


def test_a_combination_has_the_facts_of_its_components() -> None:
    info = resolve("lora+bitfit").info
    assert info.name == "lora+bitfit"
    assert info.hyperparameters == STRATEGIES["lora"].info.hyperparameters


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(NotFoundError, match='no strategy "bitfitt"; did you mean "bitfit"'):
        resolve("lora+bitfitt")


@pytest.mark.parametrize("name", ["full+lora", "lora+lora", "head+bitfit"])
def test_what_cannot_be_combined_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="lora, bitfit"):
        resolve(name)


def test_registries_are_read_without_a_heavy_import() -> None:
    code = (
        "import sys, tuner.strategies, tuner.tasks;"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'numpy', 'sklearn'};"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
