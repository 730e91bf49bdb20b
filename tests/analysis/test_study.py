"""A Study of planted runs: one family, planned comparisons, parts, and what is absent or made differently."""

import dataclasses
import json

import numpy as np
import pytest

from moe_study.analysis import study as module
from moe_study.analysis.comparison import Verdict, compare
from moe_study.analysis.frame import load_frame
from moe_study.analysis.pairs import default_questions
from moe_study.analysis.plots.all import figures
from moe_study.analysis.report import answers
from moe_study.analysis.statistics import equivalence_p, holm, t_test_p
from moe_study.analysis.study import evaluation_sets, read_study, study_of
from moe_study.design.routing import Capacity
from moe_study.errors import StudyError
from moe_study.runs.members import Launch, Members, PlannedComparison, record_launch
from tests.analysis import planted
from tests.analysis.test_comparison import small_frame

POINTS = ("dense 1x", "dense 2x", "token top-1", "token top-2", "token top-2, frozen", "sequence top-2")  # as planted


def by_point(folders, seeds):
    """Keys of the planted runs, by label."""
    keys = [folder.name for folder in folders]
    return {label: tuple(keys[place * seeds : (place + 1) * seeds]) for place, label in enumerate(POINTS)}


def asked(runs, left, right, **more):
    return PlannedComparison(f"the {left}", f"the {right}", runs[left], runs[right], **more)


def plan(*comparisons):
    return [Members((Launch(comparisons=comparisons),))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return planted.plant(tmp_path_factory.mktemp("runs"), seeds=range(4))


@pytest.fixture(scope="module")
def frame(folders):
    return load_frame(folders)


def test_only_what_was_planned_is_tested_and_all_else_is_described(folders, frame):
    runs = by_point(folders, 4)
    wanted = [asked(runs, "token top-2", "dense 1x"), asked(runs, "sequence top-2", "token top-2", why="Which unit?")]
    study = study_of(frame, plan(*wanted))
    assert study.planned and study.family == 2
    assert [(c.point, c.against) for c in study.comparisons] == [
        ("token top-2", "dense 1x"),
        ("sequence top-2", "token top-2"),
    ]
    (part,) = study.parts
    assert {c.verdict for c in part.others} == {Verdict.NOT_PLANNED}
    wanted_pair = ("token top-2", "dense 1x")
    automatic = {frozenset(p) for pairs in default_questions(frame, "dense 1x").values() for p in pairs}
    assert {frozenset((c.point, c.against)) for c in part.others} == automatic - {frozenset(wanted_pair)}
    said = "\n".join(answers(study))
    assert "2 of 2 planned comparisons decided; one family of 2" in said
    assert "sequence top-2 † has higher loss than token top-2" in said and "| Which unit?" in said
    assert f"{len(part.others)} comparisons that nobody planned" in said


def test_without_a_plan_all_questions_are_one_family(frame):
    study = study_of(frame)
    automatic = [pair for pairs in default_questions(frame, "dense 1x").values() for pair in pairs]
    assert not study.planned and study.family == len(automatic) == len(study.comparisons)
    alone = {(c.point, c.against): c.difference.p for c in study.comparisons}
    smallest = min(study.comparisons, key=lambda c: c.difference.p)
    assert smallest.p == pytest.approx(len(automatic) * alone[smallest.point, smallest.against])


def test_table_and_comparisons_are_computed_once(frame, monkeypatch):
    calls: list[str] = []
    for name in ("perplexity_table", "as_one_family"):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _n=name, _f=original, **k: calls.append(_n) or _f(*a, **k))
    (part,) = study_of(frame).parts
    assert next(figures(part))[0] == "perplexity"
    assert list(answers(study_of(frame)))
    assert calls == ["perplexity_table", "as_one_family"] * 2  # once for each of the two studies above


def test_later_launches_add_seeds_to_the_planned_points(folders, frame):
    runs = by_point(folders, 4)
    early = {label: keys[:2] for label, keys in runs.items()}
    late = {label: keys[2:] for label, keys in runs.items()}
    launches = (
        Launch(comparisons=(asked(early, "token top-2", "dense 1x"), asked(early, "dense 2x", "dense 1x"))),
        Launch(("run.seed=2,3",), comparisons=(asked(late, "token top-2", "dense 1x"),)),
    )
    study = study_of(frame, [Members(launches)])
    (one,) = study.comparisons  # the last launch's file asks for one comparison only
    assert one.difference.n == 4 and (one.point, one.against) == ("token top-2", "dense 1x")


def test_a_planned_side_without_any_result_is_named_as_it_was_asked_for(folders, frame):
    runs = by_point(folders, 4) | {"new": ("0" * 16, "1" * 16)}
    study = study_of(frame, plan(asked(runs, "new", "dense 1x"), asked(runs, "token top-2", "dense 1x")))
    absent, found = study.comparisons
    assert absent.verdict is Verdict.NO_PAIR and absent.point == "the new" and absent.family == 0
    assert found.family == 1 and found.verdict is Verdict.LOWER
    assert "the new and dense 1x share no finished seed" in "\n".join(answers(study))


def test_margins_are_those_of_the_plan_unless_the_command_says_otherwise(folders, frame):
    runs = by_point(folders, 4)
    wanted = plan(asked(runs, "token top-2, frozen", "token top-2", margin=0.3))
    assert study_of(frame, wanted).comparisons[0].margin == 0.3
    assert study_of(frame, wanted).parts[0].margin == 0.3  # and the picture's grey band
    assert study_of(frame, wanted, margin=0.002).comparisons[0].margin == 0.002
    with pytest.raises(StudyError, match="margin must be more than 0"):
        study_of(frame, wanted, margin=0.0)


def test_a_comparison_that_was_asked_after_the_results_says_so(folders, frame):
    study = study_of(frame, plan(asked(by_point(folders, 4), "token top-2", "dense 1x", late=True)))
    assert "(asked after results were there)" in "\n".join(answers(study))


def test_the_plan_is_read_from_the_sweep_s_members(tmp_path):
    folders = planted.plant(tmp_path, seeds=range(3))
    runs = by_point(folders, 3)
    keys = tuple(folder.name for folder in folders)
    record_launch(tmp_path, "mine", Launch(runs=keys, comparisons=(asked(runs, "token top-1", "dense 1x"),)))
    assert [c.point for c in read_study([tmp_path], "mine").comparisons] == ["token top-1"]
    assert not read_study([tmp_path]).planned
    (tmp_path / ".sweeps" / "mine.json").write_text(json.dumps(list(keys)))  # as older versions wrote it
    older = read_study([tmp_path], "mine")
    assert not older.planned and len(older.frame) == len(keys)


def test_every_evaluation_set_is_in_the_one_family(tmp_path):
    planted.plant(tmp_path, seeds=(0, 1, 2))
    planted.plant(tmp_path, seeds=(0, 1, 2), context=64, rng=1)
    study = read_study([tmp_path])
    assert len(study.parts) == 2 and {c.family for c in study.comparisons} == {len(study.comparisons)}


def test_absent_runs_stand_with_the_text_that_they_would_be_evaluated_on(tmp_path):
    long = planted.plant(tmp_path, seeds=(0, 1))
    short = planted.plant(tmp_path, seeds=(0, 1), context=64, rng=1)
    planted.set_status(short[0], "failed", {"type": "X", "message": "y", "traceback": ""})
    (long[3] / "config.yaml").unlink()
    (long[3] / "config.yaml").write_text("[]")
    sets = dict(evaluation_sets(load_frame(long + short)))
    failed = {name: set(part["key"]) & {short[0].name, long[3].name} for name, part in sets.items()}
    contexts = {name: set(part["model.context"].dropna()) for name, part in sets.items()}
    for name, keys in failed.items():  # the damaged one could belong anywhere, so it is named in both
        assert keys == ({short[0].name, long[3].name} if contexts[name] == {64} else {long[3].name})


def test_twins_are_found_at_executed_size(tmp_path):
    """A capacity lets a mixture run fewer rows than its configuration says, and so it has another dense twin."""
    capped = dataclasses.replace(planted.TOKEN_2, capacity=Capacity(0.5))
    folders = planted.plant(tmp_path, (planted.DENSE_1X, planted.DENSE_2X, capped), (0.0, -0.1, -0.2), seeds=(0, 1))
    twins = "Against the dense twin of equal active or total parameters"
    assert ("token top-2", "dense 2x") in default_questions(load_frame(folders), "dense 1x")[twins]
    dense = json.loads((folders[0] / "result.json").read_text())
    for folder in folders[4:]:
        result = json.loads((folder / "result.json").read_text())
        result["executed_active_params"] = dense["num_params"]
        (folder / "result.json").write_text(json.dumps(result))
    assert twins not in default_questions(load_frame(folders), "dense 1x")  # dense 1x, which is asked for already


def test_runs_of_other_code_are_named_in_the_part(tmp_path):
    folders = planted.plant(tmp_path)
    for folder in folders:
        commit = "b" * 40 if folder == folders[5] else "a" * 40
        (folder / "provenance.json").write_text(json.dumps({"commit": commit, "versions": {"torch": "2"}}))
    (part,) = read_study([tmp_path]).parts
    assert part.mixed == ("these runs differ in their code: 11 have aaaaaaaaa, 1 bbbbbbbbb (token top-1, seed 1)",)


# Simulated reports -----------------------------------------------------------------------------------------


def test_one_seed_is_compared_without_any_test(tmp_path):
    study = study_of(load_frame(planted.plant(tmp_path, seeds=(0,))))
    said = list(answers(study))
    assert study.family == 0 and said[0].endswith("; none has the two seeds that a test needs:")
    end = next(place for place, line in enumerate(said) if line.startswith("("))
    assert said[1] == "Not decided:" and all("at the one seed they share" in line for line in said[2:end])


REPORTS, SEEDS = 4000, 3
MOST = 0.05 + 3 * np.sqrt(0.05 * 0.95 / REPORTS)


def simulated(random, points):
    """Losses (reports, points, seeds) of equal points: a seed does the same to all; noises differ threefold."""
    noise = random.choice([0.003, 0.009], (REPORTS, points, 1))
    return 4 + random.normal(0, 0.05, (REPORTS, 1, SEEDS)) + random.normal(0, 1, (REPORTS, points, SEEDS)) * noise


def differences(losses, pairs):
    """(reports, pairs, seeds) of pairs of labels."""
    left, right = ([POINTS.index(pair[side]) for pair in pairs] for side in (0, 1))
    return losses[:, left] - losses[:, right]


def called_in_a_family(p):
    """In how many reports some Holm-adjusted p value is below 5%."""
    return np.mean([np.nanmin(holm(row)) < 0.05 for row in p])


@pytest.mark.parametrize("is_planned", [True, False])
def test_at_most_five_percent_of_reports_on_equal_points_call_any_difference(folders, frame, is_planned):
    """The comparisons share references and twins, so they depend on one another; planned or not, they are a family."""
    runs = by_point(folders, 4)
    wanted = [(label, "dense 1x") for label in POINTS[1:]] + [("token top-2", "token top-1")]
    study = study_of(frame, plan(*(asked(runs, *pair) for pair in wanted)) if is_planned else ())
    pairs = [(c.point, c.against) for c in study.comparisons]
    assert len(pairs) == study.family == (6 if is_planned else 7)
    losses = simulated(np.random.default_rng(11), len(POINTS))
    p = t_test_p(differences(losses, pairs))
    assert called_in_a_family(p) < MOST
    for report in range(5):  # what was simulated is what a report says
        shown = small_frame({label: dict(enumerate(losses[report, place])) for place, label in enumerate(POINTS)})
        assert [c.p for c in compare(shown, pairs)] == pytest.approx(holm(p[report]).tolist())
    if not is_planned:  # with a family for each heading, as it was, too many reports call something
        headings = [c.asked.question for c in study.comparisons]
        of_heading = [p[:, [place for place, one in enumerate(headings) if one == h]] for h in dict.fromkeys(headings)]
        smallest = [[np.nanmin(holm(row)) for row in group] for group in of_heading]
        assert np.mean(np.min(smallest, axis=0) < 0.05) > MOST


def test_at_most_five_percent_of_reports_on_points_at_the_margin_call_any_two_the_same(folders, frame):
    """Noise is small beside the margin, where the equivalence test has its full size."""
    losses = simulated(np.random.default_rng(5), len(POINTS))
    losses[:, 1:] += 0.5
    pairs = [(label, "dense 1x") for label in POINTS[1:]]
    p = equivalence_p(differences(losses, pairs), 0.5)
    assert 0.02 < called_in_a_family(p) < MOST
