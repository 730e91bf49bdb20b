"""What sweep files say of whose claims they test."""

from pathlib import Path

import pytest

from moe_study.errors import ConfigError
from moe_study.sweeps.claims import Claim, Expected
from moe_study.sweeps.conf import project_root
from moe_study.sweeps.sweep_file import claims_of, read_grid
from tests.part import every
from tests.sweeps.golden import plan_of_one_seed, scaled_entries

FILE = """
    source: "2402.13089,  Table 1"
    questions: [1, 5]
    points: [{routing: [dense, token_top1, token_top2]}]
    compare:
      - pair: [{routing: token_top2}, {routing: dense}]
        why: Better?
        claim: "yes,  9.9 against 10.1"
        expect: lower
      - [{routing: token_top1}, {routing: dense}]
"""
COMPARED = "points: [{routing: [dense, token_top1]}]\ncompare:\n  - pair: [{routing: token_top1}, {routing: dense}]\n"
EFFECT = "points: [{routing: [dense, token_top1]}]\ncompare:\n  - effect: routing\n"
ROOT = project_root()
NAMES = scaled_entries()


def written(text: str, tmp_path: Path) -> str:
    (tmp_path / "mine.yaml").write_text(text)
    return str(tmp_path / "mine.yaml")


def test_claims_are_read_beside_their_comparisons(tmp_path):
    claims = claims_of(written(FILE, tmp_path), tmp_path)
    assert (claims.source, claims.questions) == ("2402.13089, Table 1", (1, 5))
    assert claims.claims == (
        Claim("routing=token_top2", "routing=dense", "Better?", "yes, 9.9 against 10.1", Expected.LOWER),
        Claim("routing=token_top1", "routing=dense", ""),
    )


def test_effects_and_equal_costs_can_be_claimed_too(tmp_path):
    text = """
    points: [{routing: [dense, token_top1, token_top2, sequence_top1, sequence_top2]}]
    compare:
      - effect: [unit, k]
        where: {routing.gate: softmax_then_pick}
        why: Does K help sequences more?
        claim: "yes, it does"
        expect: lower
      - pair: [{routing: token_top2}, {routing: dense}]
        at: [flops, seconds]
        claim: as good
        expect: not_higher
    """
    effect, flops, seconds = claims_of(written(text, tmp_path), tmp_path).claims
    where = "effect of unit x k where routing.gate=softmax_then_pick"
    assert effect == Claim(where, "", "Does K help sequences more?", "yes, it does", Expected.LOWER)
    assert effect.is_of(f"{where}: unit sequence x k 2") and not effect.is_of(f"{where} routing.k=2: unit sequence")
    assert (flops.at, seconds.at, flops.expect) == ("flops", "seconds", Expected.NOT_HIGHER)
    pair = "routing=token_top2 against routing=dense"
    assert flops.is_of(f"{pair} at flops") and not flops.is_of(f"{pair} at seconds") and not flops.is_of(pair)


def test_claims_change_nothing_of_what_is_trained_or_tested(tmp_path):
    bare = FILE.replace('source: "2402.13089,  Table 1"', "").replace("questions: [1, 5]", "")
    bare = bare.replace('claim: "yes,  9.9 against 10.1"', "").replace("expect: lower", "")
    with_claims, without = (read_grid(written(text, tmp_path), tmp_path) for text in (FILE, bare))
    assert with_claims == without and len(without.questions) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (COMPARED + "    claim: yes\n    expect: less", "expect: 'less' is none of lower, higher, same, not_higher"),
        (COMPARED + "    claim: yes", "claim and expect go together"),
        (COMPARED + "    expect: same", "claim and expect go together"),
        (COMPARED + "    claim: [a]\n    expect: same", "claim must be a text"),
        (EFFECT + "    claim: yes", "claim and expect go together: what the source says of effect of routing"),
        (EFFECT + "    claim: yes\n    expect: more", "expect: 'more' is none of lower, higher, same, not_higher"),
        ("source: [a]", "source must be a text"),
        ("questions: 3", "questions must be a list of numbers"),
        ("questions: [0]", "questions must be a list of numbers"),
        ("questions: [true]", "questions must be a list of numbers"),
    ],
)
def test_mistakes_are_one_sentence_with_the_file_s_name(tmp_path, text, said):
    with pytest.raises(ConfigError, match=r"mine\.yaml") as caught:
        read_grid(written(text, tmp_path), tmp_path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", every(3, (name for name in NAMES if name.endswith("@cpu"))))
def test_every_claim_of_a_committed_sweep_is_that_of_a_comparison_in_its_plan(name, composer):
    claims = claims_of(name, ROOT).claims
    plan = plan_of_one_seed(composer, name)
    texts = {(one.text, "") for one in (*plan.effects, *plan.trends)}
    asked = {(one.left, one.right) for one in plan.comparisons} | texts
    assert claims and {(claim.left, claim.right) for claim in claims} <= asked


def test_committed_sweeps_have_the_scales_that_the_readme_names():
    assert len(NAMES) == 3 * len({name.partition("@")[0] for name in NAMES})
    assert {name.partition("@")[2] for name in NAMES} == {"paper", "gpu", "cpu"}
