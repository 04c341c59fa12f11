from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.samples import LABELS, study
from tuner.study.domains import Value
from tuner.tasks import TASKS
from tuner.training.adapt import Adapted, adapt
from tuner.training.cache import WarmCache
from tuner.training.model import load_base
from tuner.training.regularisers import l2_sp

PARAMS: dict[str, Value] = {"lora.r": 4, "vera.r": 8, "prompt.length": 4, "intrinsic.dimension": 50}


def model(folder: Path, strategy: str, **params: Value) -> Adapted:
    spec = study(folder)
    base = load_base(spec, task=TASKS[spec.task], labels=LABELS, pad=0, cache=WarmCache())
    return adapt(base, strategy=strategy, params=PARAMS | params, dropout=0.0, seed=0)


@pytest.mark.parametrize(
    "strategy", ["full", "ia3", "lora", "vera", "intrinsic", "prompt", "reinit", "head>lora", "norm"]
)
def test_the_start_is_where_nothing_pulls_but_at_the_new_head(tmp_path: Path, strategy: str) -> None:
    adapted = model(tmp_path, strategy, **{"lora.dora": strategy == "lora"})
    starts = adapted.starts()
    trained = {name: parameter for name, parameter in adapted.model.named_parameters() if name in adapted.trained}
    head = trained["classifier.weight"].square().sum()
    torch.testing.assert_close(l2_sp(trained, starts=starts), 0.5 * head)
    assert trained.keys() - starts.keys() == {"classifier.weight"}


def test_the_start_stays_while_the_model_is_trained(tmp_path: Path) -> None:
    adapted = model(tmp_path, "ia3")
    starts = adapted.starts()
    with torch.no_grad():
        for parameter in adapted.model.parameters():
            parameter.zero_()
    factors = [start for name, start in starts.items() if "ia3_l" in name]
    assert factors and all(bool((start == 1.0).all()) for start in factors)
