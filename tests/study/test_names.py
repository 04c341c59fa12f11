from __future__ import annotations

from tuner.study.names import components, did_you_mean


def test_near_word_is_suggested() -> None:
    assert did_you_mean("learning_rat", ["batch_size", "learning_rate"]) == '; did you mean "learning_rate"?'


def test_case_and_hyphens_do_not_hide_a_near_word() -> None:
    assert did_you_mean("Text_Classification", ["text-classification"]) == '; did you mean "text-classification"?'


def test_far_word_gets_the_list() -> None:
    assert did_you_mean("xyz", ["head", "lora"]) == "; known: head, lora"


def test_long_list_is_cut() -> None:
    assert did_you_mean("?", [f"name{index}" for index in range(15)]).endswith("name11 and 3 more")


def test_nothing_known_nothing_said() -> None:
    assert not did_you_mean("x", [])


def test_components_keep_their_order() -> None:
    assert components("lora+bitfit") == ("lora", "bitfit")
    assert components("head") == ("head",)
