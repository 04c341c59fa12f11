"""One trial as something that makes it again: a study file with its values fixed, or a Python script.

Both say all that decides over its curve, in absolute units. What a study file cannot say stands in its comments.
"""

from __future__ import annotations

import pprint
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from tuner.study.domains import Value
from tuner.study.spec import LEAST_HELD_BACK, StudySpec

_SECTIONS = ("task", "model", "revision", "data", "objective", "constraints", "training", "distill")
_LONGEST_NAME = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Reprint:
    """A trial that is to be made again.

    Attributes:
        spec: Its study.
        number: The trial.
        strategy: Its strategy.
        params: Its values, absolute.
        seed: Of its run.
        micro_batches: As in :class:`tuner.study.plan.TrialPlan`.
        facts: What it ran on: ``device``, ``threads``, ``code``, ``versions``; empty if that is not known.
        curve: What each epoch reported.
        is_cut: Whether it was stopped before its end.
        judged_rows: Validation rows that judged its epochs; None if that is not known.
        why_infeasible: Which constraint it broke, or why it could not run; empty if neither.
    """

    spec: StudySpec
    number: int
    strategy: str
    params: Mapping[str, Value]
    seed: int
    micro_batches: Sequence[tuple[int, int]]
    facts: Mapping[str, Any]
    curve: Sequence[Mapping[str, float]]
    is_cut: bool
    judged_rows: int | None = None
    why_infeasible: str = ""

    @property
    def name(self) -> str:
        """What its study file calls it."""
        end = f"-trial-{self.number}"
        return self.spec.name[: _LONGEST_NAME - len(end)] + end


def as_mapping(trial: Reprint) -> dict[str, Any]:
    """The trial as the content of a study file: one strategy, every value fixed, one trial."""
    asked = trial.spec.model_dump(mode="json", exclude_none=True)  # the defaults, too: another version may have others
    sections = {name: asked[name] for name in _SECTIONS if name in asked}
    training = {**sections.pop("training"), "seed": trial.seed}
    if len(trial.micro_batches) == 1 and trial.micro_batches[0][1] < int(trial.params.get("batch_size", 0)):
        training["micro_batch"] = trial.micro_batches[0][1]
    teacher = sections.pop("distill", None)
    space: dict[str, Any] = {}
    for name, value in trial.params.items():
        section, _, knob = name.rpartition(".")
        if section == "distill" and teacher is not None:
            teacher[knob] = value
        elif section:
            space.setdefault(section, {})[knob] = value
        else:
            space[name] = value
    return {
        "name": trial.name,
        **sections,
        "strategies": [trial.strategy],
        "space": space,
        "training": training,
        **({} if teacher is None else {"distill": teacher}),
        "budget": {"trials": 1},
        "confirm": _confirmation(trial),
    }


def _confirmation(trial: Reprint) -> dict[str, Any]:
    """None, unless validation rows were held back for it: without it, other rows would judge the trial."""
    asked = trial.spec.confirm
    is_small = asked.held_back == "auto" and trial.judged_rows is not None and trial.judged_rows < 2 * LEAST_HELD_BACK
    if not asked.finalists or not asked.held_back or is_small or trial.spec.data.folds:
        return {"finalists": 0}
    return {"finalists": asked.finalists, "seeds": 1, "held_back": asked.held_back}


def as_yaml(trial: Reprint) -> str:
    """The trial as a study file."""
    head = [f"# Trial {trial.number} of study {trial.spec.name}, and nothing else: the same rows, seed and values."]
    head += [f"# It ran on {words}." for words in _ran_on(trial.facts)]
    head += [f"# {what}" for what in unsaid(trial)]
    body = yaml.safe_dump(as_mapping(trial), sort_keys=False, allow_unicode=True, width=120)
    return "\n".join(head) + "\n" + str(body)


def unsaid(trial: Reprint) -> list[str]:
    """What a reader must know of a study file that is to make a trial again."""
    found = []
    if trial.seed != trial.spec.training.seed:
        found.append(
            f"Not the same: the rows were split with seed {trial.spec.training.seed}, the trial had seed {trial.seed}; --recipe python says both."
        )
    if len(trial.micro_batches) > 1:
        found.append(
            "Not said here: the memory ran short on the way, and batches were split anew; --recipe python says where."
        )
    if _confirmation(trial)["finalists"]:
        found.append(
            "There is a confirmation because rows are held back for it: without one, others would judge the trial."
        )
    count = len(trial.curve)
    epochs = f"{count} epoch{'' if count == 1 else 's'}"
    if trial.why_infeasible:
        found.append(f"The trial was infeasible after {epochs}, and this may be, too: {trial.why_infeasible}.")
    elif trial.is_cut:
        found.append(f"The trial was stopped after {epochs}; this goes on to the end.")
    return found


def as_script(trial: Reprint) -> str:
    """The trial as a Python script that trains it again and compares the curves, bit for bit."""
    study = {**as_mapping(trial), "training": trial.spec.training.model_dump(mode="json", exclude_none=True)}
    arguments = {
        "strategy": trial.strategy,
        "seed": trial.seed,
        "threads": trial.facts.get("threads"),
        "micro_batches": [list(part) for part in trial.micro_batches],
        "stop_after": len(trial.curve) if trial.is_cut else None,
    }
    return _SCRIPT.format(
        number=trial.number,
        study=trial.spec.name,
        ran_on="".join(f"\nIt ran on {words}." for words in _ran_on(trial.facts)),
        no_gpu=_NO_GPU if trial.facts.get("device") == "cpu" else "",
        document=_shown(study),
        values=_shown(dict(trial.params)),
        arguments=_shown({name: value for name, value in arguments.items() if value not in (None, [])}),
        curve=_shown([dict(epoch) for epoch in trial.curve]),
    )


def _shown(value: Any) -> str:
    return pprint.pformat(value, width=110, sort_dicts=False)


def _ran_on(facts: Mapping[str, Any]) -> list[str]:
    """What a trial ran on, in words; nothing where that is not known."""
    if not facts:
        return []
    count = facts.get("threads", 0) if facts.get("device") == "cpu" else 0
    threads = f" with {count} thread{'' if count == 1 else 's'}" if count else ""
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    code = f"tuner {facts['code']}" if "code" in facts else ""
    return [", ".join(part for part in (f"{facts.get('device', 'a device')}{threads}", code, versions) if part)]


_NO_GPU = """
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # it ran on a CPU
"""

_SCRIPT = '''"""Train trial {number} of study {study} again, and say whether its curve is the recorded one, bit for bit.
{ran_on}
"""

import os
import sys
{no_gpu}
import tuner

STUDY = {document}

VALUES = {values}

ARGUMENTS = {arguments}

CURVE = {curve}


def main() -> int:
    found = tuner.train_trial(STUDY, values=VALUES, **ARGUMENTS)
    for epoch, (then, now) in enumerate(zip(CURVE, found), start=1):
        differing = [name for name in then if now.get(name) != then[name]]
        print(f"epoch {{epoch}}: " + (f"{{', '.join(differing)}} differ" if differing else "the same"))
        for name in differing:
            print(f"  {{name}}: {{then[name]!r}} then, {{now.get(name)!r}} now")
        if differing:
            return 1
    print(f"{{len(CURVE)}} epochs then, {{len(found)}} now")
    return int(len(found) != len(CURVE))


if __name__ == "__main__":
    sys.exit(main())
'''
