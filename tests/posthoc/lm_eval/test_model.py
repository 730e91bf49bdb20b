"""A run as lm-evaluation-harness asks it: text in, log-likelihoods and text out."""

import numpy as np
import pytest
from lm_eval.api.instance import Instance

from moe_study.design.config import TokenizerConfig
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.errors import StudyError
from moe_study.posthoc.lm_eval.model import StudyLM
from tests.posthoc.lm_eval.reference import Slow
from tests.posthoc.runs import CONTEXT, untrained_run

BYTES = TokenizerConfig("bytes", None)
END = 256
LEAKING = {"k": 2, "unit": "sequence", "context": "unit_mean"}
BY_LABEL = {"k": 1, "unit": "sequence", "router": "label", "context": "label"}


def run_of(tmp_path, settings):
    return untrained_run(tmp_path, from_plain(Routing, settings), tokenizer=BYTES)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("runs"), {"selection": "dense"})


@pytest.fixture(scope="module")
def model(dense):
    return StudyLM(dense)


def asked(kind, *arguments, doc=None):
    return Instance(request_type=kind, doc=doc or {}, arguments=arguments, idx=0)


def likelihoods(model, *pairs, doc=None):
    return model.loglikelihood([asked("loglikelihood", *pair, doc=doc) for pair in pairs])


PAIRS = (
    ("the house", " of"),
    ("", "dawn"),
    ("a", "b"),
    ("x", " a continuation that is longer than the context"),
    ("é", "ö"),
)


def test_log_likelihoods_are_those_of_a_slow_loop(dense, model):
    slow = Slow.of_run(dense)
    for (context, continuation), found in zip(PAIRS, likelihoods(model, *PAIRS), strict=True):
        wanted = slow.of(list(context.encode()) or [END], list(continuation.encode()))
        assert found[0] == pytest.approx(wanted[0], abs=1e-4) and found[1] == wanted[1]


def test_blanks_at_the_end_of_a_context_go_to_the_continuation(dense, model):
    slow = Slow.of_run(dense)
    wanted = slow.of(list(b"the"), list(b"  cat"))[0], slow.of([END], list(b" x"))[0]
    found = likelihoods(model, ("the ", " cat"), (" ", "x"))
    assert [one for one, _ in found] == pytest.approx(list(wanted), abs=1e-4)


def test_an_empty_continuation_is_certain(model):
    assert likelihoods(model, ("a", ""), ("", "")) == [(0.0, True), (0.0, True)]


def test_a_rolling_likelihood_counts_every_token_once(dense, model):
    texts = ["short", "exactly 12 b", "a text that takes more than one window of the context", ""]
    found = model.loglikelihood_rolling([asked("loglikelihood_rolling", text) for text in texts])
    slow = Slow.of_run(dense)
    assert found == [pytest.approx(slow.of([END], list(text.encode()))[0], abs=1e-4) for text in texts]


def greedy(slow, text, most):
    """What a slow loop continues with."""
    read = list(text.encode()) or [END]
    for _ in range(most):
        read.append(int(np.argmax(slow.log_probabilities(read))))
        if read[-1] == END:
            break
    return bytes(i for i in read[len(text.encode()) or 1 :] if i != END).decode("utf-8", "replace")


def generated(model, *texts, **settings):
    return model.generate_until([asked("generate_until", text, dict(settings)) for text in texts])


@pytest.mark.parametrize("settings", [{"selection": "dense"}, LEAKING], ids=["dense", "leaking"])
def test_greedy_text_is_that_of_a_slow_loop_beyond_the_context_too(tmp_path, settings):
    folder = run_of(tmp_path, settings)
    model, slow = StudyLM(folder, growing_prefixes=True), Slow.of_run(folder)
    texts = ["one", "two", "three more words than fit", "", "one"]
    found = generated(model, *texts, max_gen_toks=CONTEXT + 3)
    assert found == [greedy(slow, text, CONTEXT + 3) for text in texts]


def test_text_ends_before_its_stop(model):
    (whole,) = generated(model, "one", max_gen_toks=9)
    assert len(whole) > 3
    stop = whole[2:4]
    assert generated(model, "one", max_gen_toks=9, until=[stop]) == [whole[: whole.index(stop)]]
    assert generated(model, "one", max_gen_toks=9, until=stop) == [whole[: whole.index(stop)]]
    assert generated(model, "one", max_new_tokens=0) == [""]


@pytest.mark.parametrize("settings", [{"do_sample": True}, {"temperature": 0.7}])
def test_samples_are_refused(model, settings):
    with pytest.raises(StudyError, match="only greedy text"):
        generated(model, "one", **settings)


def test_a_leaking_routing_is_refused_unless_prefixes_may_grow(tmp_path):
    folder = run_of(tmp_path, LEAKING)
    with pytest.raises(StudyError, match=r"reads later tokens.*--growing-prefixes"):
        StudyLM(folder)
    slow = Slow.of_run(folder)
    found = likelihoods(StudyLM(folder, growing_prefixes=True), *PAIRS)
    wanted = [slow.of(list(context.encode()) or [END], list(text.encode()))[0] for context, text in PAIRS]
    assert [one for one, _ in found] == pytest.approx(wanted, abs=1e-4)


def test_a_router_by_label_is_told_what_the_document_or_the_option_says(tmp_path):
    folder = run_of(tmp_path, BY_LABEL)
    slow = Slow.of_run(folder)
    wanted = {name: slow.of(list(b"ab"), list(b"cd"), label)[0] for label, name in enumerate(("de", "en"))}
    assert abs(wanted["de"] - wanted["en"]) > 1e-3
    for option, document, name in (
        ("en", {}, "en"),
        (None, {"language": "de"}, "de"),
        ("en", {"language": "de"}, "de"),
    ):
        model = StudyLM(folder, label=option)
        assert likelihoods(model, ("ab", "cd"), doc=document)[0][0] == pytest.approx(wanted[name], abs=1e-4)
    with pytest.raises(StudyError, match=r"routed by language.*--label de or en"):
        likelihoods(StudyLM(folder), ("ab", "cd"))
    with pytest.raises(StudyError, match="--label de or en"):
        likelihoods(StudyLM(folder, label="fr"), ("ab", "cd"))


def test_a_label_that_nobody_reads_is_refused(dense):
    with pytest.raises(StudyError, match="not routed by label"):
        StudyLM(dense, label="en")
