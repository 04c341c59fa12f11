from __future__ import annotations

import pytest

from tuner.study.names import combinations, components, count_noun, did_you_mean, hours_words, joined, nearest, stages


def test_near_word_is_suggested() -> None:
    assert did_you_mean("learning_rat", ["batch_size", "learning_rate"]) == '; did you mean "learning_rate"?'


def test_case_and_hyphens_do_not_hide_a_near_word() -> None:
    assert did_you_mean("Text_Classification", ["text-classification"]) == '; did you mean "text-classification"?'


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("lr", ["lora", "learning_rate"], "learning_rate"),
        ("rank", ["r", "alpha_ratio", "rank_stabilized"], "r"),
        ("N-Trials", ["epochs", "trials"], "trials"),
        ("params", ["space", "strategies"], "space"),
        ("lr", ["lora", "head"], "lora"),  # what it means elsewhere is not known here
        ("mgn", ["max_grad_norm"], "max_grad_norm"),
    ],
)
def test_what_people_call_a_name_elsewhere_leads_to_it(word: str, known: list[str], meant: str) -> None:
    assert nearest(word, known) == meant


def test_a_list_names_nothing_twice() -> None:
    assert did_you_mean("xyz", ["head", "lora", "head"]) == "; known: head, lora"


def test_far_word_gets_the_list() -> None:
    assert did_you_mean("xyz", ["head", "lora"]) == "; known: head, lora"


def test_long_list_is_cut() -> None:
    assert did_you_mean("?", [f"name{index}" for index in range(19)]).endswith("name15 and 3 more")


def test_nothing_known_nothing_said() -> None:
    assert not did_you_mean("x", [])


def test_components_keep_their_order() -> None:
    assert components("lora+bitfit") == ("lora", "bitfit")
    assert components("head") == ("head",)


def test_components_of_a_sequence_are_those_of_all_stages() -> None:
    assert stages("head>lora+bitfit") == ("head", "lora+bitfit")
    assert components("head>lora+bitfit") == ("head", "lora", "bitfit")


def test_combinations_come_with_the_fewest_parts_first_and_keep_the_order_written() -> None:
    assert combinations(("c", "a", "b")) == ("c", "a", "b", "c+a", "c+b", "a+b", "c+a+b")
    assert len(combinations("abcde")) == 31


def test_spaces_around_signs_are_no_part_of_a_name() -> None:
    assert joined(" head > lora +bitfit ") == "head>lora+bitfit"
    assert joined("top layers") == "top layers"


def test_counts_have_their_noun_in_the_right_number() -> None:
    assert count_noun(1, "row") == "1 row"
    assert count_noun(2189, "row") == "2,189 rows"
    assert count_noun(1, "strategy", "strategies") == "1 strategy"
    assert count_noun(0, "strategy", "strategies") == "0 strategies"


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (1.0, "1 device hour"),
        (1.5, "1.5 device hours"),
        (0.1, "0.1 device hours"),
        (1 / 60, "1 device minute"),
        (0.05, "3 device minutes"),
        (0.001, "3.6 device seconds"),
        (1 / 3600, "1 device second"),
    ],
)
def test_small_hours_are_minutes_or_seconds(hours: float, words: str) -> None:
    assert hours_words(hours, kind="device") == words


def test_used_hours_have_the_unit_of_their_limit() -> None:
    assert hours_words(2.0, used=0.5) == "0.50 of 2 hours"
    assert hours_words(0.001, kind="device", used=0.0005) == "1.80 of 3.6 device seconds"
