from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tuner.errors import NotFoundError, UsageError
from tuner.strategies import STRATEGIES, resolve
from tuner.strategies.sequence import Sequence


def test_a_single_name_is_the_registered_strategy() -> None:
    assert resolve("lora") is STRATEGIES["lora"]


def test_a_combination_has_the_facts_of_its_components() -> None:
    info = resolve("lora+bitfit").info
    assert info.name == "lora+bitfit"
    assert info.hyperparameters == STRATEGIES["lora"].info.hyperparameters


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(NotFoundError, match='no strategy "bitfitt"; did you mean "bitfit"'):
        resolve("lora+bitfitt")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("full+lora", "full stands alone"),
        ("head+bitfit", "head stands alone"),
        ("lora+lora", "a component is named twice"),
        ("head>full+lora", "full stands alone"),
    ],
)
def test_what_cannot_be_combined_is_refused(name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=f"cannot be combined - {reason}; write different ones of .*bitfit") as caught:
        resolve(name)
    assert "full" not in caught.value.fix


def test_a_sequence_has_two_stages() -> None:
    sequence = resolve("head>lora+bitfit")
    assert isinstance(sequence, Sequence)
    assert sequence.first is STRATEGIES["head"]
    assert sequence.second.info.name == "lora+bitfit"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("head>lora>full", '"head>lora>full" has 3 stages; write two, such as head>lora'),
        (
            "head>gradual",
            '"head>gradual" is no sequence - gradual has a schedule or a start of its own; write two of full',
        ),
        (
            "reinit>lora",
            '"reinit>lora" is no sequence - reinit has a schedule or a start of its own; write two of full',
        ),
        ("lora>lora+bitfit", '"lora>lora+bitfit" is no sequence - lora stands in both stages; leave it out of one'),
        ("head>head", '"head>head" is no sequence - head stands in both stages; leave it out of one'),
    ],
)
def test_what_cannot_follow_one_another_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("head>lorra", 'no strategy "lorra"; did you mean "lora"'),
        ("heads>lora", 'no strategy "heads"; did you mean "head"'),
        ("head>lora+bitfitt", 'no strategy "bitfitt"; did you mean "bitfit"'),
        ("head>", 'no strategy ""; known: full'),
        ("lora+", 'no strategy ""; known: full'),
    ],
)
def test_an_unknown_part_of_a_sequence_gets_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(NotFoundError, match=re.escape(message)):
        resolve(name)


def test_registries_are_read_without_a_heavy_import() -> None:
    code = (
        "import sys, tuner.strategies, tuner.tasks;"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'numpy', 'sklearn'};"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
