"""What a pretrained model is, read from its configuration and the headers of its weights: no torch, no code of its own.

Weights are counted from the safetensors header, a JSON object of names, types and shapes behind an eight-byte length
(https://huggingface.co/docs/safetensors), so a model of any size is known after a few kilobytes.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import DataError, first_line
from tuner.study.positions import token_limit
from tuner.study.ranges import Findings
from tuner.study.rules import is_path
from tuner.study.sources import is_package, resolve_package
from tuner.study.spec import StudySpec

_HEADER_LIMIT = 100 * 1024 * 1024  # bytes; the format's own limit
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """A pretrained model, as facts.

    Attributes:
        source: As the study file names it.
        parameters: Number of stored weights.
        architecture: Class that wrote it, such as ``BertForMaskedLM``; empty if the configuration does not say.
        model_type: Family, such as ``bert``.
        max_tokens: Longest input in tokens, None where the configuration sets no bound.
        revision: Commit of a hub model; empty for a folder.
        folder: Where its files are on this machine; empty for a hub model that was not fetched yet.
        labels: The classes that it tells apart, by index; empty if its configuration names none.
    """

    source: str
    parameters: int
    architecture: str
    model_type: str
    max_tokens: int | None = None
    revision: str = ""
    folder: str = ""
    labels: tuple[str, ...] = ()


def read_model(spec: StudySpec, *, findings: Findings) -> ModelFacts | None:
    """The facts of a study's model.

    Args:
        spec: The study; a model folder in it is absolute.
        findings: Takes the reasons why the model cannot be used.

    Returns:
        The facts, or None if the model cannot be read.
    """
    if is_package(spec.model):
        try:
            return _folder_facts(spec.model, resolve_package(spec.model), findings=findings)
        except DataError as error:
            findings.refuse("model", error.message)
            return None
    if is_path(spec.model, base=Path.cwd()):
        return _folder_facts(spec.model, Path(spec.model).expanduser(), findings=findings)
    facts = _cached_facts(spec, findings=findings) or _hub_facts(spec, findings=findings)
    if facts is not None and facts.revision and not _COMMIT.fullmatch(spec.revision or ""):
        moves = f'revision "{spec.revision}" moves' if spec.revision else "no revision is given"
        findings.warn("revision", f"{moves}; the study is pinned to {facts.revision}")
    return facts


def _folder_facts(source: str, folder: Path, *, findings: Findings, revision: str = "") -> ModelFacts | None:
    if not folder.is_dir():
        why = "it is a file; name its folder" if folder.exists() else "no such folder on this machine"
        findings.refuse("model", f"{source} cannot be read - {why}")
        return None
    names = sorted(file.name for file in folder.iterdir())
    config = _config(folder / "config.json", source=source, findings=findings)
    weights = _weights(names, source=source, findings=findings)
    if not any(name in names for name in _TOKENIZERS):
        findings.refuse("model", f"{source} has no tokenizer; save it beside the model with save_pretrained")
    if config is None or not weights:
        return None
    _refuse_remote_code(config, source=source, findings=findings)
    try:
        parameters = sum(count_parameters(folder / name) for name in weights)
    except DataError as error:
        findings.refuse("model", error.message)
        return None
    return _facts(config, source=source, parameters=parameters, revision=revision, folder=str(folder))


def _facts(
    config: Mapping[str, Any], *, source: str, parameters: int, revision: str = "", folder: str = ""
) -> ModelFacts:
    architectures = config.get("architectures")
    model_type = config.get("model_type")
    return ModelFacts(
        source=source,
        parameters=parameters,
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        model_type=model_type if isinstance(model_type, str) else "",
        max_tokens=token_limit(config),
        revision=revision,
        folder=folder,
        labels=_labels(config),
    )


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    named = config.get("id2label")
    if not isinstance(named, Mapping) or not all(str(index).isdigit() for index in named):
        return ()
    return tuple(str(named[index]) for index in sorted(named, key=int))


def hub_labels(source: str, *, revision: str) -> tuple[str, ...]:
    """The classes of a model on the hub, from its configuration; empty if that cannot be fetched or names none."""
    from huggingface_hub import hf_hub_download

    try:
        config = json.loads(Path(hf_hub_download(source, "config.json", revision=revision)).read_bytes())
    except Exception:  # noqa: BLE001 - as in _hub_facts; that the model is there was found out before
        return ()
    return _labels(config) if isinstance(config, dict) else ()


def _config(file: Path, *, source: str, findings: Findings) -> dict[str, Any] | None:
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        findings.refuse("model", f"{source} has no config.json; is it the folder that save_pretrained wrote?")
    except (OSError, ValueError, RecursionError) as error:
        findings.refuse("model", f"{source}: config.json cannot be read - {error}")
    else:
        if isinstance(config, dict):
            return config
        findings.refuse("model", f"{source}: config.json is not a JSON object")
    return None


def _weights(names: Sequence[str], *, source: str, findings: Findings) -> list[str]:
    """The safetensors files among a model's files; why there are none is noted."""
    shards = [name for name in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)]
    weights = ["model.safetensors"] if "model.safetensors" in names else shards
    if weights:
        return weights
    adapters = [name for name in names if name == "adapter_model.safetensors"]
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if adapters:
        findings.refuse(
            "model", f"{source} holds an adapter only; name the model that it belongs to, or merge it first"
        )
    elif pickles:
        findings.refuse(
            "model",
            f"{source} has no safetensors file ({pickles[0]} is a pickle, which can run code); "
            "convert it first with save_pretrained",
        )
    else:
        findings.refuse("model", f"{source} has no weights (model.safetensors)")
    return []


def _refuse_remote_code(config: Mapping[str, Any], *, source: str, findings: Findings) -> None:
    if not config.get("auto_map"):
        return
    model_type = config.get("model_type")
    if isinstance(model_type, str) and _is_built_in(model_type):
        findings.warn("model", f"{source} brings its own code, which is never run; the built-in {model_type} is used")
    else:
        findings.refuse(
            "model", f"{source} wants to run its own code; refused. Choose a model that transformers has built in"
        )


def _is_built_in(model_type: str) -> bool:
    """Whether transformers has this family, told by its folder: importing it would take seconds."""
    spec = importlib.util.find_spec("transformers")
    places = spec.submodule_search_locations if spec is not None else None
    name = model_type.replace("-", "_")
    return name.isidentifier() and any((Path(place) / "models" / name).is_dir() for place in places or ())


def count_parameters(file: Path) -> int:
    """Number of weights in a safetensors file, from its header.

    Raises:
        DataError: If the file is cut off or no safetensors file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, _HEADER_LIMIT):
                raise DataError(
                    f"{file}: not a whole safetensors file", why="its header is cut off", fix="fetch it again"
                )
            header = json.loads(stream.read(length))
        shapes = {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}
        end = max((tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0)
        parameters = sum(math.prod(int(length) for length in shape) for shape in shapes.values())
    except OSError as error:
        raise DataError(f"{file}: cannot be read", why=error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise DataError(f"{file}: not a safetensors file", fix="convert the model with save_pretrained") from None
    if 8 + length + end > size:
        raise DataError(f"{file}: not a whole safetensors file", why="weights are cut off", fix="fetch it again")
    return parameters


def _cached_facts(spec: StudySpec, *, findings: Findings) -> ModelFacts | None:
    """The facts of a hub model that lies in this machine's cache with its weights, else None."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(spec.model, "config.json", revision=spec.revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    if not list(folder.glob("model*.safetensors")):
        return None
    return _folder_facts(spec.model, folder, findings=findings, revision=folder.name)


def _hub_facts(spec: StudySpec, *, findings: Findings) -> ModelFacts | None:
    """The facts of a hub model, by one request for its metadata."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = f'"{spec.model}"'
    try:
        info = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).model_info(
            spec.model, revision=spec.revision, timeout=20, expand=["config", "safetensors", "sha", "siblings"]
        )
    except OfflineModeIsEnabled:
        findings.refuse(
            "model", f"{name} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it; unset it or name a folder"
        )
    except GatedRepoError:
        findings.refuse("model", f"{name} is gated; accept its terms on the hub and log in with `hf auth login`")
    except RepositoryNotFoundError:
        findings.refuse(
            "model", f"{name} is not on the hub, or is private; check the name, or log in with `hf auth login`"
        )
    except RevisionNotFoundError:
        findings.refuse("revision", f'{name} has no revision "{spec.revision}"')
    except Exception as error:  # noqa: BLE001 - the client has one class of error for each way in which a network fails
        findings.refuse(
            "model",
            f"{name} is not on this machine and the hub cannot be reached ({first_line(error)[:120]}); name a local folder",
        )
    else:
        config: dict[str, Any] = info.config or {}
        names = [file.rfilename for file in info.siblings or ()]
        _refuse_remote_code(config, source=spec.model, findings=findings)
        if not _weights(names, source=spec.model, findings=findings):
            return None
        parameters = info.safetensors.total if info.safetensors is not None else 0
        return _facts(config, source=spec.model, parameters=parameters, revision=info.sha or "")
    return None
