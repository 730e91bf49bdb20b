"""Readers' questions: how they are written, and what stands under each."""

from types import SimpleNamespace

import pandas as pd
import pytest

from moe_study.analysis.results.questions import QUESTIONS, question_block, read_readers_questions
from moe_study.errors import DataError
from moe_study.sweeps.claims import Claims


def questions(tmp_path, text):
    (tmp_path / QUESTIONS).write_text(text)
    return read_readers_questions(tmp_path / QUESTIONS)


@pytest.mark.parametrize(
    "content",
    [
        "- a",
        "one: {asks: b}",
        "1: what",
        "1: {read: {a: [comparisons]}}",
        "1: {asks: a, measure: b}",
        "1: {asks: a, read: [b]}",
        "1: {asks: a, read: {b: comparisons}}",
        "1: {asks: a, read: {b: []}}",
        "1: {asks: a, read: {b: [nothing]}}",
        "1: {asks: a, read: {b: [tokens-brown/nothing]}}",
        "1: {asks: a, read: {b: [tokens]}}",
        "1: {asks: a, read: {b: [sparsify-brown]}}",
    ],
)
def test_questions_that_cannot_be_read_are_one_sentence(tmp_path, content):
    with pytest.raises(DataError, match=QUESTIONS) as caught:
        questions(tmp_path, content)
    assert "\n" not in str(caught.value)


def finding(why, verdict, expect=None, decided=True):
    claim = SimpleNamespace(why=why, expect=expect)
    return SimpleNamespace(claim=claim, verdict=verdict, decided=decided, told=lambda asked: f"**{verdict}**: {asked}")


@pytest.fixture
def sweeps(tmp_path):
    found = (finding("Is it?", "holds", "lower"), finding("And that?", "undecided at this size", None, decided=False))
    archive = SimpleNamespace(name="my/own@cpu", folder=tmp_path)
    return [SimpleNamespace(archive=archive, study=None, findings=found)]


def test_an_answer_has_every_comparison_of_what_is_read(tmp_path, sweeps):
    (one,) = questions(tmp_path, '12: {asks: "Why?", read: {my/own: [comparisons]}, needs_scale: tasks., lacks: That.}')
    assert question_block(one, sweeps, {}) == (
        "12. **Why?** Claims: 1 × holds. Other comparisons: 1 × undecided at this size.\n"
        "    - [my/own@cpu](my/own@cpu/answers.md): 1 of 2 decided\n"
        "      - **holds**: Is it?\n"
        "      - **undecided at this size**: And that?\n"
        "    - Needs scale: tasks.\n"
        "    - That."
    )


def test_a_question_is_led_by_how_often_each_verdict_came_out_over_all_sweeps_that_are_read(tmp_path, sweeps):
    other = (
        finding("A?", "fails", "same"), finding("B?", "holds", "same"), finding("C?", "higher"), finding("D?", "higher")
    )  # fmt: skip
    sweeps.append(SimpleNamespace(**{**vars(sweeps[0]), "findings": other}))
    sweeps[1].archive = SimpleNamespace(name="another", folder=tmp_path)
    (one,) = questions(tmp_path, '1: {asks: "Why?", read: {my/own: [comparisons], another: [comparisons, costs]}}')
    for sweep in sweeps:
        sweep.study = SimpleNamespace(parts=[])
    lead = question_block(one, sweeps, {}).splitlines()[0]
    assert lead == (
        "1. **Why?** Claims: 2 × holds, 1 × fails. Other comparisons: 2 × higher, 1 × undecided at this size."
    )


def test_costs_stand_beside_losses_lowest_first(tmp_path, sweeps):
    table = pd.DataFrame(
        {"label": ["a", "b", "c"], "loss": [4.2, 4.1, None], "executed_flops_per_token": [2e5, 1.5e5, 1.0],
         "train_seconds": [30.0, 61.0, 1.0]}
    )  # fmt: skip
    part = SimpleNamespace(name="", table=table, marked=lambda label: "a †" if label == "a" else label)
    study = SimpleNamespace(parts=[part])
    sweeps = [SimpleNamespace(**{**vars(sweeps[0]), "study": study})]
    (one,) = questions(tmp_path, '1: {asks: "Why?", read: {my/own: [costs]}}')
    said = question_block(one, sweeps, {}).splitlines()[-1]
    assert said.endswith("(executed FLOPs per token, training time): b 4.100 (150k, 1m01s); a † 4.200 (200k, 30s)")


def test_what_was_not_run_or_not_measured_says_what_to_type(tmp_path, sweeps):
    (one,) = questions(tmp_path, '1: {asks: "Why?", read: {other: [comparisons], my/own: [tokens-brown/unseen]}}')
    assert question_block(one, sweeps, {}) == (
        "1. **Why?**\n"
        "   - other was not run yet: `python train.py -m +sweep=other scale=cpu`\n"
        "   - [my/own@cpu](my/own@cpu/answers.md)\n"
        "     - not measured yet: `moe-study results --sweep my/own@cpu --probe brown`"
    )


def test_a_sweep_whose_file_names_the_number_is_read_too(tmp_path, sweeps):
    (one,) = questions(tmp_path, '1: {asks: "Why?"}')
    assert "**: Is it?" in question_block(one, sweeps, {"my/own": Claims("", (1,))})
    assert "Is it?" not in question_block(one, sweeps, {"my/own": Claims("", (2,))})
