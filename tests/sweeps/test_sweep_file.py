"""Sweep files, read into points."""

import pytest

from moe_study.errors import ConfigError
from moe_study.sweeps.compose import Composed
from moe_study.sweeps.partial import matching_excludes
from moe_study.sweeps.sweep_file import Grid, as_overrides, find_sweep, read_grid, sweep_names, with_overrides


@pytest.fixture
def grid_of(tmp_path):
    def read(text: str) -> Grid:
        (tmp_path / "sweeps").mkdir(exist_ok=True)
        (tmp_path / "sweeps" / "mine.yaml").write_text(text)
        return read_grid("mine", tmp_path)

    return read


def test_grid_is_the_union_of_products_times_seeds(grid_of):
    grid = grid_of("""
        base: {model: nano, run.tokens: 500_000}
        seeds: [0, 1]
        points:
          - {routing: [token_top1, token_top2], routing.num_experts: [2, 4]}
          - {routing: dense, routing.ffn_multiplier: 2}
    """)
    lines = [" ".join(as_overrides(point)) for point in grid.points]
    assert len(lines) == (2 * 2 + 1) * 2
    assert lines[0] == "model=nano run.tokens=500000 routing=token_top1 routing.num_experts=2 run.seed=0"
    assert lines[1].endswith("routing.num_experts=2 run.seed=1")
    assert lines[-1] == "model=nano run.tokens=500000 routing=dense routing.ffn_multiplier=2 run.seed=1"


def test_point_overrides_base_and_seeds_may_be_left_out(grid_of):
    grid = grid_of("base: {model: nano}\npoints: [{model: micro}, {}]")
    assert [point["model"] for point in grid.points] == ["micro", "nano"]
    assert all("run.seed" not in point for point in grid.points)


def test_list_in_a_list_is_a_list_value(grid_of):
    grid = grid_of("points: [{routing.layers: [[0, 2], [1]]}]")
    assert [point["routing.layers"] for point in grid.points] == ["[0,2]", "[1]"]


def test_command_line_goes_to_every_point_and_multiplies_lists(grid_of, composer):
    grid = grid_of("seeds: [0, 1]\npoints: [{routing: [dense, token_top1]}]")
    more = with_overrides(grid, composer.parse(["model=micro", "run.seed=5,6,7"]))
    assert len(more.points) == 2 * 2 * 3  # the plan drops what stands twice
    assert {point["run.seed"] for point in more.points} == {"5", "6", "7"}
    assert all(point["model"] == "micro" for point in more.points)


def excluded(composer, entry, *overrides: str) -> bool:
    composed: Composed = composer.compose(overrides)
    return bool(matching_excludes([entry], composed))


def test_exclusion_matches_groups_and_resolved_values(composer):
    point = ("routing=token_top2", "routing.num_experts=2", "optimizer.lr=1e-3")
    assert excluded(composer, {"routing": "token_top2", "routing.num_experts": 2}, *point)
    assert not excluded(composer, {"routing": "token_top2", "routing.num_experts": 4}, *point)
    assert excluded(composer, {"routing.k": 2, "model": "nano"}, *point)  # both from files
    assert excluded(composer, {"routing.num_experts": [2, 8]}, *point)  # any of
    assert excluded(composer, {"optimizer.lr": 0.001}, *point)
    assert not excluded(composer, {"run.compile": 0}, *point)  # false is not 0


def test_values_of_exclude_are_read_like_those_of_points(grid_of, composer):
    grid = grid_of("exclude:\n  - {optimizer.lr: 1e-3}\n  - {log.wandb: off}\n  - {routing.num_experts: [[4, 4, 4]]}")
    point = ("optimizer.lr=0.001", "routing.num_experts=[4,4,4]")
    assert matching_excludes(grid.exclude, composer.compose(point)) == [0, 1, 2]
    assert matching_excludes(grid.exclude, composer.compose(["log.wandb=offline", "optimizer.lr=2e-3"])) == []


def test_exclusion_of_an_unknown_key_is_refused(composer):
    with pytest.raises(ConfigError, match=r"exclude: unknown key routing\.kk"):
        excluded(composer, {"routing.kk": 1})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("point: []", "did you mean points?"),
        ("seeds: 3", "seeds must be a list of whole numbers"),
        ("seeds: [0.5]", "seeds must be a list of whole numbers"),
        ("seeds: [true]", "seeds must be a list of whole numbers"),
        ("points: {routing: dense}", "points must be a list of mappings"),
        ("base: [model=nano]", "base must map override keys to values"),
        ("points: [{routing: []}]", "routing has an empty list"),
        ("skip_invalid: maybe", "skip_invalid must be true or false"),
        ("seeds: [0, 1, 0]", "seeds must be different numbers"),
        ("points: [{routing.num_experts: [4, 4]}]", "write each once, or routing.num_experts: [[4,4]] for the one"),
        ("points: [{data.options: {a b: 1}}]", "data.options: 'a b' cannot be a key"),
        ("points: [", "cannot be read"),
        ("- a", "must hold some of"),
    ],
)
def test_mistakes_in_a_sweep_file_are_one_sentence_with_its_name(grid_of, text, said):
    with pytest.raises(ConfigError, match=r"mine\.yaml") as caught:
        grid_of(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_misspelt_sweep_gets_a_suggestion(grid_of, tmp_path):
    grid_of("seeds: [1]")
    with pytest.raises(ConfigError, match="did you mean mine"):
        find_sweep("mien", tmp_path)


def test_sweep_may_be_a_path(tmp_path):
    (tmp_path / "elsewhere.yaml").write_text("seeds: [4]")
    assert read_grid(str(tmp_path / "elsewhere.yaml"), tmp_path).name == "elsewhere"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """sweeps/ with folders, a hidden one among them, and a file beside it."""
    monkeypatch.chdir(tmp_path)
    for name in ("sweeps/first", "sweeps/recipe/init", "sweeps/recipe/deep/er", "sweeps/.hidden/first", "beside"):
        (tmp_path / f"{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text("seeds: [4]")
    return tmp_path


def test_a_sweep_s_name_is_its_path_below_sweeps(folders):
    assert sweep_names(folders) == ["first", "recipe/deep/er", "recipe/init"]
    for name in sweep_names(folders):
        assert read_grid(name, folders).name == name
        assert read_grid(str(folders / "sweeps" / f"{name}.yaml"), folders).name == name


def test_sweeps_of_the_current_folder_count_after_the_clone_s_own(folders, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("first", "mine/own"):
        (elsewhere / "sweeps" / f"{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / "sweeps" / f"{name}.yaml").write_text("seeds: [7]")
    monkeypatch.chdir(elsewhere)
    assert find_sweep("first", folders) == folders / "sweeps" / "first.yaml"
    assert read_grid("mine/own", folders).name == "mine/own"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recipe/inti", "did you mean recipe/init?"),
        ("init", "did you mean recipe/init?"),
        ("something", "there are first, recipe/deep/er, recipe/init"),
        ("recipe", "there is no sweep recipe in"),
        ("../beside", "there is no sweep ../beside in"),
        ("recipe/../first", "did you mean recipe/init?"),
        (".hidden/first", "there is no sweep .hidden/first in"),
    ],
)
def test_no_name_leads_out_of_sweeps_and_an_unknown_one_gets_names_with_folders(folders, name, said):
    with pytest.raises(ConfigError) as caught:
        find_sweep(name, folders)
    assert said in str(caught.value)
