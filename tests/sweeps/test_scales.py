"""The scales of a sweep: what a file says at each, how one is chosen, and what is kept under which name."""

from pathlib import Path

import pytest

from moe_study.errors import ConfigError, StudyError
from moe_study.runs.members import Launch, read_members, record_launch
from moe_study.sweeps.plan import Plan, plan_command
from moe_study.sweeps.scales import split
from moe_study.sweeps.sweep_file import Grid, read_grid, scales_of

TWO = """
    base: {model: nano, optimizer.lr: 1e-3}
    seeds: [0, 1]
    scale: small
    scales:
      small: {run.tokens: 4096, $corpus: parliament_news_512}
      big: {model: micro, seeds: [0, 1, 2], $corpus: openwebtext}
    points:
      - {routing: dense, data: $corpus}
      - {routing: token_top1, data: $corpus, optimizer.lr: 2e-3}
    compare:
      - [{routing: token_top1, data: $corpus}, {routing: dense}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sweeps" / "design").mkdir(parents=True)
    (tmp_path / "sweeps" / "design" / "mine.yaml").write_text(TWO)
    return tmp_path


@pytest.fixture
def plan(folder, composer):
    def of(*arguments: str) -> Plan:
        return plan_command(composer, [*arguments, f"log.runs_dir={folder / 'runs'}"], folder)

    return of


def written(text: str, tmp_path: Path) -> str:
    (tmp_path / "mine.yaml").write_text(text)
    return str(tmp_path / "mine.yaml")


def test_changes_of_a_scale_come_after_those_of_base_and_before_those_of_points(folder):
    grid = read_grid("design/mine", folder, "big")
    assert {point["model"] for point in grid.points} == {"micro"}
    assert [point["optimizer.lr"] for point in grid.points] == ["0.001"] * 3 + ["0.002"] * 3
    assert [point["run.seed"] for point in grid.points] == ["0", "1", "2"] * 2
    assert all("run.tokens" not in point for point in grid.points)


def test_words_stand_for_what_the_scale_says_in_points_and_comparisons(folder):
    assert {point["data"] for point in read_grid("design/mine", folder, "big").points} == {"openwebtext"}
    small = read_grid("design/mine", folder, "small")
    assert {point["data"] for point in small.points} == {"parliament_news_512"}
    assert small.questions[0].texts == ("routing=token_top1 data=parliament_news_512", "routing=dense")


def test_the_scale_is_part_of_the_sweep_s_name_and_not_of_a_run_s_key(plan):
    small, same = plan("sweep=design/mine"), plan("sweep=design/mine", "scale=small")
    big = plan("sweep=design/mine@big")
    assert [small.name, same.name, big.name] == ["design/mine@small", "design/mine@small", "design/mine@big"]
    keys = [run.key for run in small.runs]
    assert keys == [run.key for run in same.runs]
    by_hand = plan(
        "model=nano", "optimizer.lr=1e-3", "run.steps=null", "run.tokens=4096", "data=parliament_news_512",
        "routing=dense", "run.seed=0",
    )  # fmt: skip
    assert keys[0] == by_hand.runs[0].key
    assert not {run.key for run in big.runs} & set(keys)


def test_members_are_kept_for_each_scale(plan, folder):
    small, big = plan("sweep=design/mine"), plan("sweep=design/mine", "scale=big")
    small.record_members()
    assert read_members(folder / "runs", "design/mine").runs == [run.key for run in small.runs]  # the only one there is
    big.record_members()
    assert read_members(folder / "runs", "design/mine@big").runs == [run.key for run in big.runs]
    assert read_members(folder / "runs", "design/mine@small").runs == [run.key for run in small.runs]
    with pytest.raises(StudyError, match=r"several scales; say which: design/mine@big or design/mine@small"):
        read_members(folder / "runs", "design/mine")


def test_a_sweep_of_another_name_is_not_taken_for_a_scale(tmp_path):
    record_launch(tmp_path, "design/mine2@cpu", Launch(runs=("a",)))
    with pytest.raises(StudyError, match="no sweep design/mine was launched"):
        read_members(tmp_path, "design/mine")


def test_a_command_line_adds_to_every_point_of_a_scale(plan):
    more = plan("sweep=design/mine", "scale=small", "run.seed=7", "optimizer.lr=3e-3")
    assert {run.config.optimizer.lr for run in more.runs} == {3e-3}
    assert {run.config.run.seed for run in more.runs} == {7}
    assert more.name == "design/mine@small" and more.added == ("optimizer.lr=3e-3", "run.seed=7")


def test_scales_are_listed(folder):
    assert scales_of("design/mine", folder) == ["small", "big"]
    (folder / "sweeps" / "plain.yaml").write_text("seeds: [1]")
    assert scales_of("plain", folder) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep=design/mine", "scale=bigg"], "has no scale bigg; did you mean scale=big?"),
        (["sweep=design/mine", "scale=7"], "has no scale 7; choose one of small, big"),
        (["sweep=design/mine@bog"], "has no scale bog; did you mean scale=big?"),
        (["sweep=design/mine@big", "scale=small"], "name two scales; leave one of them out"),
        (["sweep=design/mine", "scale=big,small"], "scale=big,small lists several values, and a command has one"),
        (["sweep=design/mine", "scale=[big]"], "scale takes one name"),
        (["scale=big"], "scale=big chooses the size of a sweep; add +sweep=NAME"),
        (["sweep=design/mein@big"], "did you mean design/mine?"),
    ],
)
def test_a_wrong_choice_is_one_sentence(plan, arguments, said):
    with pytest.raises(ConfigError) as caught:
        plan(*arguments)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "scale", "said"),
    [
        ("seeds: [1]", "cpu", "has no scales; leave scale=cpu out"),
        ("scales: {cpu: {}, gpu: {}}", None, "has scales; choose one: scale=cpu or scale=gpu"),
        ("scale: cpu", None, "it has no scales"),
        ("scale: cp\nscales: {cpu: {}}", None, "'cp' is none of its scales; did you mean cpu?"),
        ("scales: [cpu]", "cpu", "scales must map names to changes"),
        ("scales: {}", "cpu", "scales must map names to changes"),
        ("scales: {cpu: pico}", "cpu", "scales must map names to changes"),
        ("scales: {cpu: {base: {model: nano}}}", "cpu", "base cannot stand in a scale"),
        ("scales: {a@b: {}}", "cpu", "a scale's name has letters, digits, - and _, unlike 'a@b'"),
        ("scales: {cpu: {}}\npoints: [{data: $text}]", "cpu", "$text stands for nothing"),
        ("scales: {cpu: {$texts: a}}\npoints: [{data: $text}]", "cpu", "did you mean $texts?"),
        ("scales: {cpu: {seeds: 3}}", "cpu", "seeds must be a list of whole numbers"),
        ("base: [1]\nscales: {cpu: {}}", "cpu", "base must map override keys to values"),
    ],
)
def test_mistakes_in_scales_are_one_sentence_with_the_file_s_name(tmp_path, text, scale, said):
    with pytest.raises(ConfigError, match=r"mine\.yaml") as caught:
        read_grid(written(text, tmp_path), tmp_path, scale)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_misspelt_override_of_a_scale_is_one_sentence(tmp_path, composer):
    name = written("scales: {cpu: {modle: nano}}", tmp_path)
    with pytest.raises(ConfigError, match="unknown key modle; did you mean model"):
        plan_command(composer, [f"sweep={name}", "scale=cpu"], tmp_path)


def test_a_scale_without_changes_is_the_file_as_it_stands(tmp_path):
    name = written("base: {model: nano}\nseeds: [1]\nscales: {cpu:, gpu: {model: micro}}", tmp_path)
    assert read_grid(name, tmp_path, "cpu") == Grid("mine@cpu", ({"model": "nano", "run.seed": "1"},))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("design/table1@cpu", ("design/table1", "cpu")),
        ("design/table1", ("design/table1", None)),
        ("a@b/c", ("a@b/c", None)),
        ("a@b@c", ("a@b", "c")),
        ("@cpu", ("@cpu", None)),
        ("a@", ("a@", None)),
    ],
)
def test_a_name_is_split_at_its_last_mark(name, parts):
    assert split(name) == parts


def test_a_file_whose_name_has_the_mark_is_itself(tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "a@b.yaml").write_text("seeds: [3]")
    assert read_grid("a@b", tmp_path).name == "a@b"
