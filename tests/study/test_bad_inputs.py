"""What people write by mistake, each with the one line they get."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.study.samples import CATALOGUE, STUDY, changed, with_space
from tuner.errors import StudyFileError
from tuner.study.domains import Choice
from tuner.study.file import load_study_file, parse_study
from tuner.study.hyperparameters import SHARED_HYPERPARAMETERS
from tuner.study.names import listed

BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
BOMB += "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d]\n"

COMBINABLE = listed([name for name, info in CATALOGUE.strategies.items() if info.combinable])
SEQUENTIAL = listed([name for name, info in CATALOGUE.strategies.items() if info.sequential])
SCHEDULES = next(
    ", ".join(str(option) for option in knob.allowed.options)
    for knob in SHARED_HYPERPARAMETERS
    if knob.name == "schedule" and isinstance(knob.allowed, Choice)
)

ONE_LINE = {
    # The YAML itself
    "empty": ("", "study.yaml: the file is empty; see studies/quickstart.yaml for an example"),
    "only comments": ("# nothing\n", "study.yaml: the file is empty; see studies/quickstart.yaml for an example"),
    "byte order mark": (
        "\ufeff" + STUDY,
        "study.yaml:1:1: the file starts with a byte order mark; save it as UTF-8 without one",
    ),
    "NUL": (changed("demo", "de\0mo"), "study.yaml:1:9: the character U+0000 is not allowed in YAML; remove it"),
    "tab": (changed("  train", "\ttrain"), "study.yaml:5:1: tab used for indentation; use spaces"),
    "tag": (changed("demo", "!!python/object:os.system x"), "study.yaml:1:7: YAML tags are not allowed; remove it"),
    "duplicate key": (STUDY + "name: other\n", 'study.yaml:13:1: key "name" is given twice (first at line 1)'),
    "alias bomb": (BOMB, "study.yaml:1:26: the file expands to more than 10,000 values; refused"),
    "alias loop": ("a: &a [*a]\n", "study.yaml:1:4: an alias refers to itself; refused"),
    "unknown alias": ("a: *b\n", "study.yaml:1:4: an alias (*) names no anchor (&) before it"),
    "too large": ("#" * 1024 * 1024 + STUDY, "study.yaml: the file is larger than 1 MiB; refused"),
    "too many values": (
        f"a: [{'1,' * 20_000}]",
        "study.yaml:1:19999: the file expands to more than 10,000 values; refused",
    ),
    "too deep": ("[" * 100, "study.yaml:1:51: nested more than 50 levels deep; refused"),
    "list not closed": (
        changed("[head, lora, full]", "[head, lora"),
        "study.yaml:10:13: a list that starts with [ is not closed with ]",
    ),
    "quote not closed": (changed("demo", '"demo'), "study.yaml:1:7: a quote is not closed"),
    "colon in a value": (
        changed("demo", "demo: first"),
        "study.yaml:1:11: a colon followed by a space stands inside a value; put the value in quotes",
    ),
    "no colon": (
        changed("name: demo", "name demo"),
        'study.yaml:2:5: the line before has no colon after its key; write "key: value"',
    ),
    "special character": (
        changed("demo", "@demo"),
        "study.yaml:1:7: '@' cannot start a value; put the value in quotes",
    ),
    "bad indentation": (
        changed("  text: text", "   text: text"),
        "study.yaml:6:8: this line is indented more than the one before, which has its value already",
    ),
    "file ends in a list": (STUDY + "a: [1,\n", "study.yaml:14:1: the file ends within a value; close its [ or {"),
    "nothing before a comma": (STUDY + "a: [1,, 2]\n", "study.yaml:13:7: a value is missing before the comma"),
    "star": (changed("demo", "*"), "study.yaml:1:8: * and & begin a name of YAML's own; put the value in quotes"),
    "pipe": (changed("demo", "|x"), "study.yaml:1:8: | and > begin a text of several lines; put the value in quotes"),
    "list beside its key": (
        changed("demo", "- demo"),
        "study.yaml:1:7: a list item stands beside its key; write it into the next line, or the list as [a, b]",
    ),
    "two documents": (STUDY + "---\na: 1\n", "study.yaml:13:1: there is a second document (---) in the file; keep one"),
    "not a mapping": ("- a\n", 'study.yaml:1:1: a study file is a block of "key: value" lines, got a list of 1'),
    "key is a number": (STUDY + "1: x\n", "study.yaml:13:1: a key must be text; put it in quotes"),
    "endless number": (changed("12", "9" * 5000), "study.yaml:12:18: the number is too long"),
    # Fields
    "typo in the budget alone": (
        changed("trials: 12", "gpu_hour: 2"),
        'study.yaml:12:10: unknown key "gpu_hour"; did you mean "gpu_hours"?',
    ),
    "share in percent": (
        changed("validation: 0.2", "validation: 20%"),
        'study.yaml:8:15: data.validation: "20%" is no share of the rows; write 0.2',
    ),
    "key of another section": (
        STUDY + "epochs: 3\n",
        'study.yaml:13:1: unknown key "epochs"; it belongs to another section, write training: {epochs: ...}',
    ),
    "searched key of another section": (
        STUDY + "lr: 3\n",
        'study.yaml:13:1: unknown key "lr"; it belongs to another section, write space: {learning_rate: ...}',
    ),
    "other name": (STUDY + "space: {lr: 3}\n", 'study.yaml:13:9: unknown key "lr"; did you mean "learning_rate"?'),
    "other name in a block": (
        STUDY + "space: {lora: {rank: 3}}\n",
        'study.yaml:13:16: unknown key "rank"; did you mean "r"?',
    ),
    "other name outside its block": (
        STUDY + "space: {rank: 3}\n",
        'study.yaml:13:9: unknown key "rank"; it belongs to a strategy, write lora: {r: ...}',
    ),
    "unknown key": (changed("epochs", "epoch"), 'study.yaml:11:12: unknown key "epoch"; did you mean "epochs"?'),
    "misspelt required key": (
        changed("strategies", "strategy"),
        'study.yaml:10:1: unknown key "strategy"; did you mean "strategies"?',
    ),
    "missing key": (
        changed("model: owner/model\n", ""),
        "study.yaml:1:1: model is missing: hub id, local folder, or package://NAME/PATH",
    ),
    "missing in a section": (
        changed("  train: train.csv\n", ""),
        "study.yaml:4:1: data.train is missing: training rows: a .csv, .tsv, .tab, .jsonl or .parquet file, "
        "package://NAME/PATH, or hub://OWNER/NAME?split=train",
    ),
    "quoted number": (
        changed("epochs: 4", 'epochs: "4"'),
        'study.yaml:11:20: training.epochs must be a whole number from 1 to 10,000, got text "4"; remove the quotes',
    ),
    "fraction of an epoch": (
        changed("epochs: 4", "epochs: 1.5"),
        "study.yaml:11:20: training.epochs must be a whole number from 1 to 10,000, got 1.5",
    ),
    "number for a name": (changed("demo", "12"), "study.yaml:1:7: name must be text, got 12; put it in quotes"),
    "name of a path": (
        changed("demo", "../../etc"),
        'study.yaml:1:7: name may use A-Z a-z 0-9 . _ - (1 to 100, a letter or digit first), got text "../../etc"',
    ),
    "no value": (changed("demo", ""), "study.yaml:1:6: name has no value; it must be text"),
    "value of a set": (
        changed("epochs: 4", "epochs: 4, precision: bf-16"),
        'study.yaml:11:34: training.precision: unknown value "bf-16"; did you mean "bf16"? (one of auto, fp32, bf16, fp16)',
    ),
    "share above one": (
        changed("0.2", "1.5"),
        "study.yaml:8:15: data.validation must be a number between 0 and 1 or a file, got 1.5",
    ),
    "one text of a pair": (
        changed("text: text", "text: [a]"),
        "study.yaml:6:9: data.text must be text or a list of 2 texts, got a list of 1",
    ),
    "text for a block": (
        changed("{epochs: 4}", "4"),
        "study.yaml:11:11: training must be a block with the keys epochs, "
        "max_length, precision, seed, patience, select, micro_batch, got 4",
    ),
    "no trials": (
        changed("trials: 12", "trials: 0"),
        "study.yaml:12:18: budget.trials must be a whole number from 1 to 100,000, got 0",
    ),
    "too many trials": (
        changed("trials: 12", "trials: 1000000000"),
        "study.yaml:12:18: budget.trials must be a whole number from 1 to 100,000, got 1000000000",
    ),
    "negative hours": (
        changed("trials: 12", "gpu_hours: -1"),
        "study.yaml:12:21: budget.gpu_hours must be a number above 0, got -1",
    ),
    "endless hours": (
        changed("trials: 12", "gpu_hours: .inf"),
        "study.yaml:12:21: budget.gpu_hours must be a number above 0, got inf",
    ),
    "no budget": (
        changed("{trials: 12}", "{}"),
        "study.yaml:12:9: budget: give at least one of trials, epochs, gpu_hours, hours and money",
    ),
    "budget below one trial": (
        changed("trials: 12", "epochs: 3"),
        "study.yaml:12:18: budget.epochs: 3 is less than the 4 epochs of one trial",
    ),
    # Names
    "task": (
        changed("text-classification", "txt-classification"),
        'study.yaml:2:7: task: unknown task "txt-classification"; did you mean "text-classification"?',
    ),
    "metric": (
        changed("macro_f1", "rouge"),
        'study.yaml:9:21: objective.metric: text-classification has no metric "rouge"; '
        "known: macro_f1, accuracy, precision, recall, auc, loss; "
        "for a further objective also trainable_params, seconds, peak_memory",
    ),
    "goal against the metric": (
        changed("macro_f1", "loss, goal: maximize"),
        "study.yaml:9:33: objective.goal: loss is better the lower it is; write minimize or remove the line",
    ),
    "strategy": (
        changed("lora", "lorra"),
        'study.yaml:10:20: strategies: unknown strategy "lorra"; did you mean "lora"?',
    ),
    "strategy twice": (changed("lora", "head"), 'study.yaml:10:20: strategies: "head" is given twice'),
    "combination of what cannot": (
        changed("lora", "lora+full"),
        f'study.yaml:10:20: strategies: "full" cannot be combined with others; combinable: {COMBINABLE}',
    ),
    "combination twice": (
        changed("head, lora", "bitfit+lora, lora+bitfit"),
        'study.yaml:10:27: strategies: "lora+bitfit" is the same as "bitfit+lora"',
    ),
    "component twice": (
        changed("lora", "lora+lora"),
        'study.yaml:10:20: strategies: "lora+lora" names a component twice',
    ),
    # Sequences
    "stage that is unknown": (
        changed("lora", "head>lorra"),
        'study.yaml:10:20: strategies: unknown strategy "lorra"; did you mean "lora"?',
    ),
    "stage of nothing": (
        changed("lora", "head>"),
        f'study.yaml:10:20: strategies: unknown strategy ""; known: {listed(list(CATALOGUE.strategies))}',
    ),
    "three stages": (
        changed("lora", "head>lora>bitfit"),
        'study.yaml:10:20: strategies: "head>lora>bitfit" has 3 stages; a sequence has two, such as head>lora',
    ),
    "same stage twice": (
        changed("lora", "lora>lora"),
        'study.yaml:10:20: strategies: "lora>lora" names lora in both stages; the second would train what the first does',
    ),
    "component in both stages": (
        changed("lora", "lora>bitfit+lora"),
        'study.yaml:10:20: strategies: "lora>bitfit+lora" names lora in both stages; the second would train what the first does',
    ),
    "stage of what cannot be combined": (
        changed("lora", "head>lora+full"),
        f'study.yaml:10:20: strategies: "full" cannot be combined with others; combinable: {COMBINABLE}',
    ),
    "component twice in a stage": (
        changed("lora", "head>lora+lora"),
        'study.yaml:10:20: strategies: "lora+lora" names a component twice',
    ),
    "stage with a schedule of its own": (
        changed("lora", "head>gradual"),
        f'study.yaml:10:20: strategies: "gradual" cannot stand in a sequence; these can: {SEQUENTIAL}',
    ),
    "sequence twice": (
        changed("head, lora", "head>bitfit+lora, head>lora+bitfit"),
        'study.yaml:10:32: strategies: "head>lora+bitfit" is the same as "head>bitfit+lora"',
    ),
    # Composed strategies
    "composed of an unknown one": (
        changed("[head, lora, full]", "{compose: [bitfit, lorra]}"),
        'study.yaml:10:32: strategies.compose: unknown strategy "lorra"; did you mean "lora"?',
    ),
    "composed in a list of an unknown one": (
        changed("lora", "{compose: [bitfit, lorra]}"),
        'study.yaml:10:39: strategies.compose: unknown strategy "lorra"; did you mean "lora"?',
    ),
    "composed of what cannot be combined": (
        changed("lora", "{compose: [bitfit, full]}"),
        f'study.yaml:10:39: strategies.compose: "full" cannot be combined with others; combinable: {COMBINABLE}',
    ),
    "composed of a combination": (
        changed("lora", "{compose: [bitfit+lora, norm]}"),
        'study.yaml:10:31: strategies.compose: "bitfit+lora" is more than one strategy; name each by itself',
    ),
    "composed of one": (
        changed("lora", "{compose: [lora]}"),
        "study.yaml:10:30: strategies.compose: 2 to 5 strategies can be composed, got 1",
    ),
    "composed of nothing": (
        changed("lora", "{compose: []}"),
        "study.yaml:10:30: strategies.compose: 2 to 5 strategies can be composed, got 0",
    ),
    "composed of the same twice": (
        changed("lora", "{compose: [lora, lora]}"),
        'study.yaml:10:37: strategies.compose: "lora" is given twice',
    ),
    "composed and given": (
        changed("[head, lora, full]", "[lora, {compose: [lora, bitfit]}]"),
        'study.yaml:10:30: strategies.compose: makes "lora", which is given before; remove one of them',
    ),
    "given and composed": (
        changed("[head, lora, full]", "[{compose: [lora, bitfit]}, bitfit+lora]"),
        'study.yaml:10:41: strategies: "bitfit+lora" is composed already; remove it',
    ),
    "composed by text": (
        changed("lora", "{compose: lora}"),
        'study.yaml:10:30: strategies.compose must be a list, such as [head, lora], got text "lora"',
    ),
    "composed of a number": (
        changed("lora", "{compose: [lora, 1]}"),
        "study.yaml:10:37: strategies.compose: an item must be text, got 1; put it in quotes",
    ),
    "misspelt compose": (
        changed("[head, lora, full]", "{compos: [lora, bitfit]}"),
        'study.yaml:10:14: unknown key "compos"; did you mean "compose"?',
    ),
    "strategies as text": (
        changed("[head, lora, full]", "lora"),
        'study.yaml:10:13: strategies must be a list, such as [head, lora], got text "lora"',
    ),
    "no strategies": (changed("[head, lora, full]", "[]"), "study.yaml:10:13: strategies is empty; give at least one"),
    "sampler": (
        STUDY + "search: {sampler: tpee}\n",
        'study.yaml:13:19: search.sampler: unknown sampler "tpee"; did you mean "tpe"?',
    ),
    "pruner": (
        STUDY + "search: {pruner: {name: hyperbond}}\n",
        'study.yaml:13:25: search.pruner.name: unknown pruner "hyperbond"; did you mean "hyperband"?',
    ),
    "sampler as a number": (
        STUDY + "search: {sampler: 3}\n",
        "study.yaml:13:19: search.sampler must be text or a block with the keys name, options, got 3; put it in quotes",
    ),
    "past studies under a key": (
        STUDY + "search: {learn_from: {names: [a]}}\n",
        "study.yaml:13:22: search.learn_from: must be all, none, or past studies by name, as in learn_from: [tickets]",
    ),
    "no past studies by false": (
        STUDY + "search: {learn_from: false}\n",
        "study.yaml:13:22: search.learn_from: must be all, none, or past studies by name, as in learn_from: [tickets]",
    ),
    "rows held back by a word": (
        STUDY + "confirm: {held_back: third}\n",
        'study.yaml:13:22: confirm.held_back must be auto or a number from 0.0 to 0.9, got text "third"',
    ),
    "warmup beyond the epochs": (
        STUDY + "search: {pruner: {name: median, options: {n_warmup_steps: 10}}}\n",
        "study.yaml:13:59: search.pruner.options.n_warmup_steps: 10 is not below training.epochs 4: nothing can be pruned",
    ),
    # Sources
    "ending": (
        changed("train.csv", "train.xlsx"),
        'study.yaml:5:10: data.train: files ending in ".xlsx" cannot be read; '
        "known: .csv, .tsv, .tab, .jsonl, .parquet, package://..., hub://...",
    ),
    "test is train": (
        changed("validation: 0.2", "test: train.csv"),
        "study.yaml:8:9: data.test: is the same as data.train; the rows must be others",
    ),
    "label is text": (
        changed("label: label", "label: text"),
        'study.yaml:7:10: data.label: "text" is also the column of the text',
    ),
    "hub address": (
        changed("train.csv", "hub://owner/set?splt=train"),
        'study.yaml:5:10: data.train: "hub://owner/set?splt=train": unknown option "splt"; did you mean "split"?',
    ),
    "package address": (
        changed("train.csv", "package://nothing"),
        'study.yaml:5:10: data.train: "package://nothing" is no address of a package\'s file; write package://DISTRIBUTION/PATH',
    ),
    "model": (
        changed("owner/model", "a/b/c"),
        'study.yaml:3:8: model: "a/b/c" is neither a folder here, nor OWNER/NAME on the hub, nor package://...',
    ),
    "revision of a folder": (
        changed("owner/model", "./model\nrevision: abc"),
        "study.yaml:4:11: revision: only a model on the hub has revisions; remove the line",
    ),
    # Space
    "range upside down": (
        with_space("  dropout: {low: 0.3, high: 0.1}\n"),
        "study.yaml:14:12: space.dropout: low 0.3 is above high 0.1; swap them",
    ),
    "range without an end": (
        with_space("  dropout: {low: 0.3}\n"),
        "study.yaml:14:12: space.dropout: a range needs low and high; high missing",
    ),
    "log of zero": (
        with_space("  weight_decay: {low: 0, high: 0.1, log: true}\n"),
        "study.yaml:14:23: space.weight_decay.low: a log scale needs low > 0, got 0",
    ),
    "step and log": (
        with_space("  lora: {r: {low: 8, high: 16, step: 4, log: true}}\n"),
        "study.yaml:14:13: space.lora.r: step and log exclude each other; remove one",
    ),
    "step of nothing": (
        with_space("  lora: {r: {low: 8, high: 16, step: 0}}\n"),
        "study.yaml:14:38: space.lora.r.step: must be above 0, got 0",
    ),
    "fraction for a whole number": (
        with_space("  lora: {r: {low: 1.5, high: 16}}\n"),
        "study.yaml:14:19: space.lora.r.low: whole number needed, got 1.5",
    ),
    "quoted bound": (
        with_space('  learning_rate: {low: "0.1", high: 1}\n'),
        'study.yaml:14:24: space.learning_rate.low: must be a number, got text "0.1"; remove the quotes',
    ),
    "not a number": (with_space("  dropout: .nan\n"), "study.yaml:14:12: space.dropout: must be finite, got nan"),
    "endless bound": (
        with_space("  dropout: {low: 0, high: .inf}\n"),
        "study.yaml:14:27: space.dropout.high: must be finite, got inf",
    ),
    "outside what is allowed": (
        with_space("  dropout: {low: 0, high: 0.99}\n"),
        "study.yaml:14:27: space.dropout.high: 0.99 is outside the allowed 0 to 0.9",
    ),
    "no choices": (
        with_space("  batch_size: []\n"),
        "study.yaml:14:15: space.batch_size: the list of choices is empty",
    ),
    "choice twice": (with_space("  batch_size: [8, 16, 8]\n"), "study.yaml:14:23: space.batch_size: 8 is given twice"),
    "mixed choices": (
        with_space("  schedule: [linear, 3]\n"),
        "study.yaml:14:13: space.schedule: mixes text and numbers; quote all of them or none",
    ),
    "unknown choice": (
        with_space("  schedule: [linear, cosin]\n"),
        f'study.yaml:14:22: space.schedule: unknown value "cosin"; did you mean "cosine"? (one of {SCHEDULES})',
    ),
    "true for a number": (
        with_space("  batch_size: [true]\n"),
        "study.yaml:14:16: space.batch_size: must be a number, got true",
    ),
    "range of words": (
        with_space("  schedule: {low: 1, high: 2}\n"),
        f"study.yaml:14:13: space.schedule: cannot be a range; give one value or a list of {SCHEDULES}",
    ),
    "choices as a block": (
        with_space("  dropout: {choices: [0.1, 0.2]}\n"),
        "study.yaml:14:13: space.dropout: write a plain list, such as dropout: [1, 2]",
    ),
    "misspelt bound": (
        with_space("  dropout: {low: 0, hihg: 0.1}\n"),
        'study.yaml:14:21: unknown key "hihg"; did you mean "high"?',
    ),
    "unknown hyperparameter": (
        with_space("  learning_rat: 1e-3\n"),
        'study.yaml:14:3: unknown key "learning_rat"; did you mean "learning_rate"?',
    ),
    "unknown in a strategy": (with_space("  lora: {rr: 8}\n"), 'study.yaml:14:10: unknown key "rr"; did you mean "r"?'),
    "a strategy's outside its block": (
        with_space("  r: 8\n"),
        'study.yaml:14:3: unknown key "r"; it belongs to a strategy, write lora: {r: ...}',
    ),
    "dotted": (
        with_space("  lora.r: 8\n"),
        'study.yaml:14:3: unknown key "lora.r"; write it as a block, lora: {r: ...}',
    ),
    "value for a strategy": (
        with_space("  lora: 8\n"),
        "study.yaml:14:9: space.lora: must be a block of ranges for the strategy lora",
    ),
    "combination that is not asked for": (
        with_space("  lora+bitfit: {dropout: 0.1}\n"),
        'study.yaml:14:3: "lora+bitfit" is not among the strategies; known: head, lora, full',
    ),
    "two kinds of learning rate": (
        with_space("  learning_rate: 1e-3\n  learning_rate_decades: 0\n"),
        "study.yaml:15:3: learning_rate and learning_rate_decades exclude each other; remove one",
    ),
    "relative learning rate in a block": (
        with_space("  lora: {learning_rate_decades: 0}\n"),
        "study.yaml:14:10: learning_rate_decades is for all strategies; write learning_rate in the block of one",
    ),
    "switch that is no block": (
        with_space("  switch: 0.2\n"),
        "study.yaml:14:11: space.switch: must be a block with the keys at, rate",
    ),
    "switch at the end": (
        with_space("  switch: {at: 1.5}\n"),
        "study.yaml:14:16: space.switch.at: 1.5 is outside the allowed 0.01 to 0.99",
    ),
    "unknown in the switch": (
        with_space("  switch: {ad: 0.2}\n"),
        'study.yaml:14:12: unknown key "ad"; known: at, rate',
    ),
    "switch in a sequence's block": (
        with_space("  head>lora: {at: 0.2}\n").replace("head, lora", "head, head>lora"),
        "study.yaml:14:15: at belongs to switch; write it in the block switch",
    ),
    "sequence that is not asked for": (
        with_space("  head>full: {dropout: 0.1}\n"),
        'study.yaml:14:3: "head>full" is not among the strategies; did you mean "head"?',
    ),
    # Distillation
    "no teacher": (
        STUDY + "distill: {weight: 0.5}\n",
        "study.yaml:13:1: distill.teacher is missing: a classifier with the study's labels (hub id, local folder or "
        "package://NAME/PATH), or a trial that is complete (STUDY/NUMBER)",
    ),
    "teacher that is no name": (
        STUDY + "distill: {teacher: a/b/c}\n",
        'study.yaml:13:20: distill.teacher: "a/b/c" is neither a folder here, nor OWNER/NAME on the hub, '
        "nor package://..., nor STUDY/NUMBER",
    ),
    "teacher as a block": (
        STUDY + "distill: owner/model\n",
        "study.yaml:13:10: distill must be a block with the keys teacher, revision, temperature, weight, "
        'got text "owner/model"',
    ),
    "revision of a trial": (
        STUDY + "distill: {teacher: demo/3, revision: main}\n",
        "study.yaml:13:38: distill.revision: only a model on the hub has revisions; remove the line",
    ),
    "cold teacher": (
        STUDY + "distill: {teacher: demo/3, temperature: {low: 0.1, high: 4}}\n",
        "study.yaml:13:47: distill.temperature.low: 0.1 is outside the allowed 0.5 to 20",
    ),
    "teacher's share above one": (
        STUDY + "distill: {teacher: demo/3, weight: [0.5, 1.5]}\n",
        "study.yaml:13:42: distill.weight: 1.5 is outside the allowed 0 to 1",
    ),
    "weight as text": (
        STUDY + 'distill: {teacher: demo/3, weight: "0.5"}\n',
        'study.yaml:13:36: distill.weight: must be a number, got text "0.5"; remove the quotes',
    ),
    "misspelt in distill": (
        STUDY + "distill: {teacher: demo/3, temprature: 2}\n",
        'study.yaml:13:28: unknown key "temprature"; did you mean "temperature"?',
    ),
    "distill in the space": (
        with_space("  distill: {weight: 0.5}\n"),
        "study.yaml:14:3: distill is a section of its own; write it beside space, not in it",
    ),
    "value of nothing": (with_space("  dropout:\n"), "study.yaml:14:11: space.dropout: has no value"),
    "number for a word": (with_space("  schedule: 3\n"), "study.yaml:14:13: space.schedule: must be text, got 3"),
    "number for a switch": (
        with_space("  dropout: {low: 0, high: 0.1, log: 1}\n"),
        "study.yaml:14:37: space.dropout.log: must be true or false, got 1",
    ),
    "whole number out of bounds": (
        with_space("  batch_size: 1000000\n"),
        "study.yaml:14:15: space.batch_size: 1,000,000 is outside the allowed 1 to 65,536",
    ),
    "number beyond floats": (
        with_space(f"  dropout: 1{'0' * 400}\n"),
        f"study.yaml:14:12: space.dropout: must be finite, got 1{'0' * 59}",
    ),
    "item of the wrong kind": (
        changed("lora", "1"),
        "study.yaml:10:20: strategies: an item must be text, got 1; put it in quotes",
    ),
    "no patience": (
        changed("epochs: 4", "epochs: 4, patience: 0"),
        "study.yaml:11:33: training.patience must be a whole number of at least 1, got 0",
    ),
    "a pair of the same": (
        changed("text: text", "text: [a, a]"),
        "study.yaml:6:9: data.text: a sentence pair needs two different columns",
    ),
    "package of a model": (
        changed("owner/model", "package://nothing"),
        'study.yaml:3:8: model: "package://nothing" is no address of a package\'s file; write package://DISTRIBUTION/PATH',
    ),
    "file without an ending": (
        changed("train.csv", "train"),
        'study.yaml:5:10: data.train: "train" has no ending; known: .csv, .tsv, .tab, .jsonl, .parquet, package://..., hub://...',
    ),
    "empty file name": (changed("train.csv", "' '"), 'study.yaml:5:10: data.train: must be a file, got text " "'),
    "key in the dark": (
        STUDY + '"\\e[31m\\n": 1\n',
        'study.yaml:13:1: unknown key "\\x1b[31m\\n"; known: name, task, model, revision, data, objective, constraints, '
        "strategies, space, training, search, budget, confirm, distill",
    ),
    "address in the dark": (
        changed("train.csv", '"hub://\\e[31m\\n"'),
        'study.yaml:5:10: data.train: "hub://\\x1b[31m\\n" is no address of a hub data set; write hub://OWNER/NAME?split=train',
    ),
    "text in the dark": (
        changed("macro_f1", '"a\\u202eb\\e[31m"'),
        'study.yaml:9:21: objective.metric: text-classification has no metric "a\\u202eb\\x1b[31m"; '
        "known: macro_f1, accuracy, precision, recall, auc, loss; "
        "for a further objective also trainable_params, seconds, peak_memory",
    ),
}


@pytest.mark.parametrize("mistake", ONE_LINE)
def test_one_mistake_one_clear_line(mistake: str, tmp_path: Path) -> None:
    text, line = ONE_LINE[mistake]
    with pytest.raises(StudyFileError) as caught:
        parse_study(text, source="study.yaml", base=tmp_path, catalogue=CATALOGUE)
    missing = [problem for problem in caught.value.problems if "is missing" in problem.message]
    if "is missing" not in line and len(missing) > 1:  # the text is a fragment: its own mistake is looked at
        pytest.fail(f"{mistake}: give a whole study, or a text that cannot be read at all")
    assert caught.value.message == line
    assert caught.value.exit_code == 78


def test_messages_speak_plain_words() -> None:
    jargon = (
        "Input should",
        "pydantic",
        "dict",
        "str ",
        "NoneType",
        "mapping",
        "scalar",
        "token",
        "block end",
        "valid tuple",
    )
    for mistake, (_, line) in ONE_LINE.items():
        assert not [word for word in jargon if word in line], mistake


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"name: \xff\n", "the file is not UTF-8 (byte 0xff at 6); save it as UTF-8"),
        ("name: demo\n".encode("utf-16"), "the file is not UTF-8 (byte 0xff at 0); save it as UTF-8"),
        (b"#" * (2 << 20), "the file is larger than 1 MiB; refused"),
        (b"#" * (1 << 20) + b"\xff", "the file is larger than 1 MiB; refused"),
    ],
)
def test_bytes_that_are_no_study(data: bytes, line: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes(data)
    with pytest.raises(StudyFileError) as caught:
        load_study_file(file, catalogue=CATALOGUE)
    assert caught.value.message == f"{file}: {line}"


def test_file_that_is_not_there_names_a_near_one(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    with pytest.raises(StudyFileError) as caught:
        load_study_file(tmp_path / "studdy.yaml", catalogue=CATALOGUE)
    assert caught.value.message == f'{tmp_path}/studdy.yaml: no such file; did you mean "{tmp_path}/study.yaml"?'


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"cannot be read \(Is a directory\)"):
        load_study_file(tmp_path, catalogue=CATALOGUE)
