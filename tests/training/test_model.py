from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    CamembertConfig,
    Data2VecTextConfig,
    EsmConfig,
    GPT2Config,
    LongformerConfig,
    MPNetConfig,
    MptConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaXLConfig,
    XLNetConfig,
)

from tests.training.samples import CONFIGS, LABELS, study, tensors_of, write_model
from tuner.errors import ConfigurationError, DataError
from tuner.study.positions import token_limit
from tuner.tasks import TASKS
from tuner.training.cache import WarmCache
from tuner.training.model import BaseModel, build_model, load_base, load_classifier, load_tokenizer, with_dropout


def base(folder: Path, *, kind: str = "bert", **changes: object) -> BaseModel:
    spec = study(folder, kind=kind, **changes)
    return load_base(spec, task=TASKS[spec.task], labels=LABELS, pad=0, cache=WarmCache())


def test_a_trial_does_not_change_the_base(tmp_path: Path) -> None:
    found = base(tmp_path)
    before = {name: tensor.clone() for name, tensor in found.weights.items()}
    model = build_model(found, dropout=0.1, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in found.weights.items())


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "gpt2", "llama", "t5"])
def test_the_backbone_is_the_pretrained_one_and_the_head_comes_from_the_seed(tmp_path: Path, kind: str) -> None:
    found = base(tmp_path, kind=kind)
    one, same, other = (tensors_of(build_model(found, dropout=0.0, seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    differ = {name for name in one if not torch.equal(one[name], other[name])}
    assert differ and differ <= found.fresh
    assert found.parameters == sum(p.numel() for p in build_model(found, dropout=0.0, seed=0).parameters())


def test_the_output_layer_of_a_fine_tuned_checkpoint_is_drawn_anew(tmp_path: Path) -> None:
    write_model(tmp_path / "model-distilbert", kind="distilbert")
    config = CONFIGS["distilbert"]
    for labels in (3, 5):
        config.num_labels = labels
        model = AutoModelForSequenceClassification.from_config(config)
        model.save_pretrained(tmp_path / "model-distilbert")
        found = base(tmp_path, kind="distilbert")
        assert found.fresh == {"classifier.weight", "classifier.bias"}  # pre_classifier was trained: it is kept
        built = build_model(found, dropout=0.0, seed=0)
        assert torch.equal(built.get_parameter("pre_classifier.weight"), model.pre_classifier.weight)
        assert built.get_parameter("classifier.weight").shape == (3, 16)


def test_a_folder_that_is_edited_between_two_trials_of_a_runner_is_read_anew(tmp_path: Path) -> None:
    spec, cache = study(tmp_path), WarmCache()

    def load() -> tuple[str, int]:
        found = load_base(spec, task=TASKS[spec.task], labels=LABELS, pad=0, cache=cache)
        return found.fingerprint, len(load_tokenizer(spec, cache=cache))

    first = load()
    assert load() == first
    model = AutoModel.from_pretrained(spec.model)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(spec.model)
    tokenizer = AutoTokenizer.from_pretrained(spec.model)
    tokenizer.add_tokens(["unheard"])
    tokenizer.save_pretrained(spec.model)
    again = load()
    assert again[0] != first[0] and again[1] == first[1] + 1
    assert len(load_tokenizer(spec, cache=WarmCache())) == again[1]


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "gpt2", "llama", "t5"])
def test_the_dropout_reaches_every_layer(tmp_path: Path, kind: str) -> None:
    model = build_model(base(tmp_path, kind=kind), dropout=0.37, seed=0)
    layers = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    functional = [
        value
        for module in model.modules()
        for name, value in vars(module).items()
        if "dropout" in name and isinstance(value, float)
    ]
    assert layers + functional
    assert set(layers + functional) == {0.37}


def test_the_given_configuration_is_not_changed() -> None:
    before = CONFIGS["bert"].to_dict()
    assert with_dropout(CONFIGS["bert"], 0.5).hidden_dropout_prob == 0.5
    assert CONFIGS["bert"].to_dict() == before


def test_labels_are_written_into_the_configuration(tmp_path: Path) -> None:
    assert base(tmp_path).config.id2label == dict(enumerate(LABELS))


def test_pickle_weights_are_refused(tmp_path: Path) -> None:
    spec = study(tmp_path)
    folder = Path(spec.model)
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match=r"no safetensors file - pickle weights can run code and are refused"):
        base(tmp_path)


def test_code_that_comes_with_a_model_is_refused_and_not_run(tmp_path: Path) -> None:
    spec = study(tmp_path)
    folder = Path(spec.model)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        base(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='the model of "no/where" cannot be loaded - ') as caught:
        base(tmp_path, model="no/where")
    assert "\n" not in caught.value.message
    with pytest.raises(DataError, match="is not installed"):
        base(tmp_path, model="package://nowhere/model")


def test_longer_texts_than_the_model_has_positions(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_length 65 exceeds the 64 tokens that the model can read"):
        base(tmp_path, training={"max_length": 65})


_SIZE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 20,
    "max_position_embeddings": 32,
}
_SHORT: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**_SIZE),
    "camembert": CamembertConfig(**_SIZE, pad_token_id=0),
    "data2vec": Data2VecTextConfig(**_SIZE),
    "esm": EsmConfig(**_SIZE, pad_token_id=1, mask_token_id=4),
    "gpt2": GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=32, vocab_size=20, pad_token_id=0),
    "longformer": LongformerConfig(**_SIZE, attention_window=[4]),
    "mpnet": MPNetConfig(**_SIZE),
    "mpt": MptConfig(d_model=16, n_layers=1, n_heads=2, max_seq_len=32, vocab_size=20, pad_token_id=0),
    "roberta": RobertaConfig(**_SIZE, pad_token_id=1),
    "xlm-roberta-xl": XLMRobertaXLConfig(**_SIZE),
}


@pytest.mark.parametrize("family", _SHORT)
def test_the_limit_is_what_the_model_can_really_read(family: str) -> None:
    limit = token_limit(_SHORT[family].to_dict())
    assert limit is not None
    model = AutoModelForSequenceClassification.from_config(_SHORT[family]).eval()
    model(input_ids=torch.full((1, limit), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 5))


def test_models_without_an_end_read_any_length(tmp_path: Path) -> None:
    write_model(tmp_path / "model-bert")
    config = XLNetConfig(vocab_size=23, d_model=16, n_layer=1, n_head=2, d_inner=16, pad_token_id=0)
    AutoModel.from_config(config).save_pretrained(tmp_path / "model-bert")
    found = base(tmp_path, training={"max_length": 5000})
    assert found.max_positions > 5000


def test_positions_that_are_never_used_do_not_count(tmp_path: Path) -> None:
    write_model(tmp_path / "model-bert")
    AutoModel.from_config(_SHORT["roberta"]).save_pretrained(tmp_path / "model-bert")
    assert base(tmp_path, training={"max_length": 30}).max_positions == 30
    with pytest.raises(ConfigurationError, match="max_length 31 exceeds the 30 tokens"):
        base(tmp_path, training={"max_length": 31})
    AutoModelForSequenceClassification.from_config(_SHORT["roberta"]).save_pretrained(tmp_path / "model-bert")
    spec = study(tmp_path)
    assert load_classifier(spec, task=TASKS[spec.task], pad=1).max_positions == 30


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    spec = study(tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = Path(spec.model) / name
        if file.exists():
            data = json.loads(file.read_text())
            data.pop("pad_token", None)
            file.write_text(json.dumps(data | {"eos_token": "[SEP]"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer = load_tokenizer(spec, cache=WarmCache())
    assert tokenizer.pad_token == "[SEP]"
