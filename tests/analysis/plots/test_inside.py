import dataclasses
import itertools

import pytest

from moe_study.analysis.frame import load_frame
from moe_study.analysis.plots.all import figures_inside
from moe_study.analysis.plots.style import save
from moe_study.analysis.study import study_of
from tests.analysis import planted
from tests.analysis.plots.found import keep_findings, keep_knockout, knockout, layers_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Token top-2 and sequence top-2, which leaks, with two seeds each."""
    folders = planted.plant(tmp_path_factory.mktemp("runs"), (planted.TOKEN_2, planted.SEQUENCE_2), (0.0, 0.0))
    for number, folder in enumerate(folders):
        keep_findings(folder, layers_of("language", number % 2, top=2), ("information", "shares", "co_activation"))
        keep_knockout(folder, knockout("", 4, ["language 0", "language 1"]))
    return folders


@pytest.fixture(scope="module")
def drawn(folders):
    return dict(figures_inside(part_of(folders)))


def part_of(folders):
    (part,) = study_of(load_frame(folders)).parts
    return part


def test_every_finding_has_its_picture_in_a_folder_of_its_probe(drawn):
    names = {name.rstrip("0123456789-") for name in drawn}
    assert names == {
        "planted/information", "planted/shares-by-language", "planted/shares-by-topic",
        "planted/shares-by-part-of-speech", "planted/lift-by-language", "planted/lift-by-topic",
        "planted/lift-by-part-of-speech", "planted/co-activation", "planted/knockout-by-language",
    }  # fmt: skip
    for name, figure in drawn.items():
        note = " ".join(figure.get_supxlabel().split())
        assert note.startswith("Probe planted, ") and "tokens" in note.split(".")[0] + note.split(".")[1], name
        assert "† its routing reads later tokens".lower() in note.lower(), name
        assert any("sequence top-2" in axes.get_ylabel().replace("\n", " ") for axes in figure.axes), name


def test_labels_of_tokens_are_said_to_have_a_null_beyond_the_token_id(drawn):
    for label, beyond in (("part-of-speech", True), ("language", False)):
        for kind in ("shares", "lift"):
            note = " ".join(drawn[f"planted/{kind}-by-{label}"].get_supxlabel().split())
            assert ("mean nothing beyond the token id" in note) == beyond


def test_without_findings_nothing_is_drawn_and_nothing_breaks(tmp_path):
    folders = planted.plant(tmp_path, (planted.TOKEN_2, planted.DENSE_1X), (0.0, 0.0))
    assert list(figures_inside(part_of(folders))) == []
    keep_findings(folders[-1], {})  # of a dense run: tables without rows
    assert list(figures_inside(part_of(folders))) == []


def test_one_run_with_one_finding_is_drawn(tmp_path):
    folders = planted.plant(tmp_path, (planted.TOKEN_2, planted.DENSE_1X), (0.0, 0.0))
    keep_findings(folders[0], layers_of("topic", top=2), ["co_activation"])
    assert [name for name, _ in figures_inside(part_of(folders))] == ["planted/co-activation"]


@pytest.mark.long
def test_many_experts_layers_and_points_are_drawn_without_a_warning(tmp_path, recwarn):
    """Experts that nothing is routed to, domains of few tokens: NaN in many places."""
    many = dataclasses.replace(planted.TOKEN_2, num_experts=70)
    folders = planted.plant(tmp_path, (many, planted.TOKEN_2), (0.0, 0.0), seeds=(0,))
    keep_findings(folders[0], layers_of("topic", experts=70, documents=6, topics=5, top=2), ["shares", "co_activation"])
    keep_findings(folders[1], layers_of("topic", documents=6, topics=5, top=2), ["shares"])
    drawn = dict(figures_inside(part_of(folders)))
    for figure in drawn.values():
        figure.draw_without_rendering()
    assert {"planted/lift-by-topic-2", "planted/shares-by-topic"} <= set(drawn) and not recwarn.list


@pytest.mark.long
def test_the_same_findings_give_the_same_bytes(folders, tmp_path):
    kinds = ("information-1", "shares-by-language", "lift-by-topic", "co-activation", "knockout-by-language")
    for out in (tmp_path / "a", tmp_path / "b"):
        drawn = dict(figures_inside(part_of(folders)))
        for kind in kinds:
            save(drawn[f"planted/{kind}"], out, f"planted/{kind}")
    first = sorted((tmp_path / "a" / "planted").iterdir())
    assert len(first) == 2 * len(kinds)
    for path in first:
        assert path.read_bytes() == (tmp_path / "b" / "planted" / path.name).read_bytes(), path.name


def boxes_of(figure):
    """Where the words of a figure are, in pixels: titles, names of rows, ticks and the note."""
    figure.draw_without_rendering()
    texts = [figure._suptitle, figure._supxlabel]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            seen = [tick for tick in axis.get_major_ticks() if min(limits) <= tick.get_loc() <= max(limits)]
            texts += [tick.label1 for tick in seen]
    return [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text() and text.get_visible()]


@pytest.mark.long
def test_no_words_lie_on_others_or_beyond_the_edge(drawn):
    for name, figure in drawn.items():
        boxes = boxes_of(figure)
        width, height = figure.bbox.width, figure.bbox.height
        for text, box in boxes:
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, (name, text)
        for (one, first), (two, second) in itertools.combinations(boxes, 2):
            across = min(first.x1, second.x1) - max(first.x0, second.x0)
            down = min(first.y1, second.y1) - max(first.y0, second.y0)
            assert across <= 1.5 or down <= 1.5, (name, one, two)
