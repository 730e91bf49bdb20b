"""Runs knocked out: losses against plain forward passes, planted experts, and what is kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from moe_study.analysis.specialisation.knockout import Kind, RouteChange, domain_changes
from moe_study.data.probes import Probe
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.errors import StudyError
from moe_study.posthoc.knockout import find, measure
from moe_study.posthoc.knockout.find import knock_out
from moe_study.posthoc.knockout.interventions import intervention
from moe_study.posthoc.knockout.measure import ITSELF, Reading, in_whole_parts, readings_of
from moe_study.posthoc.trace import Tracer, identity_of
from moe_study.runs.findings import find_finding
from moe_study.runs.folder import RunFolder
from moe_study.training import checkpoint
from moe_study.training.models import load_model
from tests.posthoc.runs import CONTEXT, small_probe, untrained_run
from tests.posthoc.test_trace import POINTS

LABEL_ROUTED = {"router": "label", "unit": "sequence", "context": "label"}


def run_of(tmp_path: Path, name: str) -> RunFolder:
    return untrained_run(tmp_path / "runs", from_plain(Routing, POINTS[name]))


@pytest.mark.parametrize(
    "name",
    ["top-2 sigmoid", "expert choice", "soft lagged"]
    + [
        pytest.param(name, marks=pytest.mark.long)
        for name in ("merge by segment", "label", "threshold with capacity", "global", "hash")
    ],
)
def test_what_a_document_loses_is_the_difference_of_two_plain_readings(tmp_path: Path, name: str) -> None:
    folder, probe = run_of(tmp_path, name), small_probe()
    change = RouteChange(0, Kind.REMOVE, 1)
    run = knock_out(folder, probe, [0], [Kind.REMOVE], draws=2, progress=False)
    (damage,) = [each for each in run.damages if each.of == change]
    model, lengths = load_model(folder), np.diff(probe.start_D1)
    for document in range(probe.documents):
        ids = probe.token_T[probe.start_D1[document] : probe.start_D1[document + 1]]
        losses = []
        for interventions in (None, {0: intervention(change, 0)}):
            total = 0.0
            for start in range(0, len(ids), CONTEXT):
                window = torch.from_numpy(ids[start : start + CONTEXT])[None]
                with torch.no_grad():
                    output = model(window, label_B=torch.tensor([document % 2]), interventions=interventions)
                log_p_TV = output.logits_BTV[0].double().log_softmax(1)
                following = ids[start + 1 : start + 1 + window.shape[1]]
                total -= sum(float(log_p_TV[place, token]) for place, token in enumerate(following))
            losses.append(total)
        assert damage.nats_D[document] == pytest.approx(losses[1] - losses[0], abs=2e-4)
    assert run.tokens_D.tolist() == [length - 1 for length in lengths]
    assert damage.null_ND.shape == (2, probe.documents)


def test_documents_are_cut_to_whole_parts_of_the_context() -> None:
    probe = small_probe((5, 12, 13, 1, 30))
    cut = in_whole_parts(probe, 32)  # parts of four tokens
    assert np.diff(cut.start_D1).tolist() == [4, 12, 12, 0, 28]
    for document, length in enumerate((4, 12, 12, 0, 28)):
        first, kept = probe.start_D1[document], cut.start_D1[document]
        assert np.array_equal(cut.token_T[kept : kept + length], probe.token_T[first : first + length])
    assert cut.document_labels is probe.document_labels and cut.token_labels == {}


def test_removals_and_their_nulls_take_as_many_assignments_of_the_whole_probe(tmp_path: Path) -> None:
    for name in ("threshold", "expert choice", "merge by segment"):
        folder = run_of(tmp_path, name)
        run = knock_out(folder, small_probe(), [1], [Kind.REMOVE], draws=2, progress=False)
        found = find_finding(folder.findings_folder, identity_of(folder, small_probe()), find.BY_DOCUMENT, {})
        assert found is not None
        table = found.table
        taken = table[table["kind"] == "remove"].groupby(["expert", "draw"])["moved"].sum().unstack()
        assert (taken[-1] == taken[0]).all() and (taken[-1] == taken[1]).all() and taken[-1].sum() > 0
        assert sum(damage.moved_D.sum() for damage in run.damages) == run.assigned[1].sum()


def with_loud_experts(folder: RunFolder) -> RunFolder:
    """The run with experts in its last layer that matter."""
    model = load_model(folder)
    with torch.no_grad():
        model.blocks[2].ffn.experts.down_EFD.mul_(6)
    state = {"key": folder.key, "end_of_text": 0, "step": 2, "model": model.state_dict()}
    checkpoint.save_final(folder.checkpoint_folder, state)
    return folder


def spoken_probe(folder: RunFolder, documents: int = 24) -> Probe:
    """Texts drawn from the model itself, two languages in turn: whatever is changed can only cost."""
    model, draw = load_model(folder), torch.Generator().manual_seed(3)
    language_D = torch.arange(documents) % 2
    tokens_DT = torch.randint(1, 300, (documents, 1), generator=draw)
    with torch.no_grad():
        while tokens_DT.shape[1] < CONTEXT:
            p_DV = model(tokens_DT, label_B=language_D).logits_BTV[:, -1].softmax(1)
            tokens_DT = torch.cat((tokens_DT, p_DV.multinomial(1, generator=draw)), 1)
    probe = small_probe((CONTEXT,) * documents)
    labels = {"language": (language_D.numpy(), ("de", "en"))}
    token_T = tokens_DT.flatten().numpy()
    return replace(probe, fingerprint="ab" * 32, token_T=token_T, document_labels=labels, token_labels={})


def test_a_run_routed_by_label_needs_each_languages_expert_for_that_language_alone(tmp_path: Path) -> None:
    folder = with_loud_experts(untrained_run(tmp_path / "runs", from_plain(Routing, LABEL_ROUTED)))
    probe = spoken_probe(folder)
    run = knock_out(folder, probe, [2], [Kind.REMOVE, Kind.SWAP], draws=3, progress=False)
    removed = {damage.of.expert: damage for damage in run.damages if damage.of.kind is Kind.REMOVE}
    for expert, other in ((0, 1), (1, 0)):
        assert (removed[expert].nats_D[other::2] == 0).all()  # to the last bit
        assert removed[expert].nats_D[expert::2].sum() > 0
    for unused in (2, 3):
        assert (removed[unused].nats_D == 0).all() and (removed[unused].null_ND == 0).all()
    needed = {(row.expert, row.domain) for row in domain_changes(run) if row.needed}
    assert needed == {(0, "de"), (1, "en")}
    swapped = next(damage for damage in run.damages if damage.of == RouteChange(2, Kind.SWAP, 0, 1))
    assert swapped.nats_D[::2].sum() > 0 and swapped.nats_D[1::2].sum() > 0


def test_what_was_measured_is_kept_and_only_what_is_missing_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, probe = run_of(tmp_path, "top-1"), small_probe((CONTEXT,) * 8)
    asked: list[int] = []
    real = find.measure
    monkeypatch.setattr(find, "measure", lambda *args: (asked.append(len(args[3])), real(*args))[1])
    first = knock_out(folder, probe, [0], [Kind.REMOVE], draws=2, progress=False)
    again = knock_out(folder, probe, [0], [Kind.REMOVE], draws=2, progress=False)
    assert asked == [4 * 3]
    for one, other in zip(first.damages, again.damages, strict=True):
        assert one.of == other.of and np.array_equal(one.nats_D, other.nats_D)
        assert np.array_equal(one.null_ND, other.null_ND) and np.array_equal(one.moved_D, other.moved_D)
    more = knock_out(folder, probe, [0], [Kind.REMOVE, Kind.ONE_EXPERT], draws=2, progress=False)
    assert asked == [12, 4 + 2]  # one null for all four experts
    assert len(more.damages) == 8 and np.array_equal(more.damages[0].null_ND, first.damages[0].null_ND)
    knock_out(folder, probe, [0], [Kind.REMOVE], draws=3, progress=False)
    assert asked == [12, 6, 16]
    kept = find_finding(folder.findings_folder, identity_of(folder, probe), find.TABLE, {"draws": 3})
    assert kept is not None and set(kept.table["kind"]) == {"remove"}


def test_the_finding_has_the_columns_that_are_promised(tmp_path: Path) -> None:
    folder, probe = run_of(tmp_path, "top-1"), small_probe((CONTEXT,) * 8)
    knock_out(folder, probe, [0, 2], draws=1, progress=False)
    found = find_finding(folder.findings_folder, identity_of(folder, probe), "knockout", {})
    assert found is not None
    assert list(found.table.columns) == [
        "layer", "kind", "expert", "other", "label", "domain", "change", "low", "high", "null_mean", "null_low",
        "null_high", "excess", "excess_low", "excess_high", "off_target", "off_target_domain", "p", "needed", "tokens",
        "documents", "share", "share_overall",
    ]  # fmt: skip
    assert set(found.table["layer"]) == {-1, 0, 2} and set(found.table["kind"]) == set(Kind)
    assert set(found.table["domain"]) == {"", "de", "en", "art", "war"}  # no document here is about law
    shares = (
        found.table[(found.table["kind"] == "remove") & (found.table["layer"] == 0)].groupby("domain")["share"].sum()
    )
    assert shares.to_numpy() == pytest.approx(np.ones(5))


def test_readings_are_drawn_alike_whatever_else_is_read(tmp_path: Path) -> None:
    folder, probe = run_of(tmp_path, "top-2 sigmoid"), small_probe((CONTEXT,) * 8)
    tracer, label_D = Tracer.of(folder), np.zeros(probe.documents, np.int64)
    wanted = Reading(RouteChange(1, Kind.REMOVE, 2), 1)
    every = readings_of([RouteChange(1, Kind.SWAP, 0, 1), RouteChange(1, Kind.REMOVE, 2)], draws=2)
    assert wanted in every and Reading(RouteChange(1, Kind.REMOVE, 2), ITSELF) in every
    alone, among = (
        measure.measure(tracer, probe, label_D, readings, tqdm(disable=True)).readings[wanted]
        for readings in ([wanted], every)
    )
    assert np.array_equal(alone.nats_D, among.nats_D) and np.array_equal(alone.moved_D, among.moved_D)


def test_a_dense_run_is_one_clear_sentence(tmp_path: Path) -> None:
    folder = untrained_run(tmp_path, from_plain(Routing, {"selection": "dense"}))
    with pytest.raises(StudyError, match="a dense run has no experts, so nothing can be taken away from it"):
        knock_out(folder, small_probe(), progress=False)
