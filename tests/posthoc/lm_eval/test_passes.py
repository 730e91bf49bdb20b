import json

import pytest

from moe_study.design.causality import depends_on_length
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.errors import StudyError
from moe_study.posthoc.lm_eval.passes import Passes, passes_of
from moe_study.posthoc.trace import Tracer
from tests.posthoc.lm_eval.reference import Slow
from tests.posthoc.runs import untrained_run

BATCH_CAPACITY = {"k": 2, "num_experts": 4, "capacity": {"factor": 0.5, "group": "batch"}}
CASES = [  # routing, its passes where growing prefixes are allowed, a word of the refusal otherwise
    ({"selection": "dense"}, Passes(), None),
    ({"k": 2}, Passes(), None),
    ({"k": 2, "capacity": {"factor": 1.0}}, Passes(), None),
    ({"k": 2, "unit": "sequence", "context": "unit_mean"}, Passes(growing=True), "reads later tokens"),
    ({"selection": "soft"}, Passes(growing=True), "reads later tokens"),
    ({"selection": "expert_choice", "choice_scope": "batch"}, Passes(growing=True, alone=True), "reads later tokens"),
    ({"selection": "expert_choice", "choice_scope": "position"}, Passes(alone=True), None),
    ({"selection": "expert_choice", "choice_scope": "cutoff"}, Passes(), None),
    ({"selection": "soft", "soft": {"form": "across_batch", "group_size": 4}}, Passes(alone=True), None),
    (BATCH_CAPACITY, Passes(growing=True, alone=True), "how much text there is"),
    ({**BATCH_CAPACITY, "k": 4}, Passes(growing=True, alone=True), "how much text there is"),  # all ask for all
    ({"k": 2, "shuffle": True}, Passes(growing=True, alone=True), "reads later tokens"),
]


@pytest.mark.parametrize(("settings", "passes", "refusal"), CASES)
def test_what_leaks_is_refused_or_grows_and_what_mixes_is_read_alone(tmp_path, settings, passes, refusal):
    folder = untrained_run(tmp_path, from_plain(Routing, settings))
    assert passes_of(folder, allow_growing=True) == passes
    if refusal is None:
        assert passes_of(folder) == passes
    else:
        with pytest.raises(StudyError, match=f"{refusal}.*--growing-prefixes"):
            passes_of(folder)


def test_a_limit_of_the_batch_does_depend_on_how_much_text_there_is(tmp_path):
    """What is declared of one text alone, measured: more text after the first tokens changes what they give."""
    folder = untrained_run(tmp_path, from_plain(Routing, BATCH_CAPACITY))
    model = Slow.of_run(folder).model
    tokens_BT = Tracer.of(folder).model.token_embedding.weight.new_tensor([[3, 1, 4, 1, 5, 9, 2, 6]]).long()
    short, long = (model(tokens_BT[:, :length]).logits_BTV[0, :3] for length in (3, 8))
    assert (short - long).abs().max() > 1e-3
    routing = from_plain(Routing, BATCH_CAPACITY)
    assert depends_on_length(routing, 12, sequences=1) and not depends_on_length(routing, 12, sequences=4)


def test_what_an_audit_measured_counts_too(tmp_path):
    folder = untrained_run(tmp_path, from_plain(Routing, {"k": 2}))
    result = json.loads(folder.result_file.read_text())
    found = {"own_future": True, "others_future": False, "mixes_batch": True}
    folder.result_file.write_text(json.dumps({**result, "causality_measured": found}))
    assert passes_of(folder, allow_growing=True) == Passes(growing=True, alone=True)
    with pytest.raises(StudyError, match="reads later tokens"):
        passes_of(folder)


def test_passes_are_told_in_words():
    assert Passes().words == "" and Passes(True, True).words == "growing prefixes, one document at a time"
