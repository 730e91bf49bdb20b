"""Overrides in, one validated configuration out; mistakes become one sentence."""

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from moe_study.design.config import DataConfig, RunConfig
from moe_study.design.plain import to_plain
from moe_study.design.routing import RouterState, Selection, Unit
from moe_study.guard import sentence_for
from moe_study.sweeps.compose import HYDRA_VERSION_BASE, run_config, with_plain_values, with_values
from moe_study.sweeps.conf import CONFIG_NAME, project_root
from moe_study.sweeps.values import as_text

CONF = project_root() / "conf"


def sentence(composer, *overrides: str) -> str:
    with pytest.raises(Exception) as caught:
        composer.run_config(overrides)
    said = sentence_for(caught.value)
    assert said is not None, f"a traceback: {caught.value!r}"
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["routing=token_top2_frozen", "model=micro", "run.seed=3", "optimizer.betas=[0.9,0.99]"],
        ["match=active_params", "routing.num_experts=8", "+data.options.extra={a:1}", "~data.options.extra"],
        ["recipe=pico", "model=micro", "run.tokens=9"],
        ["run.steps=7", "run.tokens=null", "model.context=64", "run.eval_tokens=${run.batch_size}"],
    ],
)
def test_quick_composition_equals_hydras(composer, overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base=HYDRA_VERSION_BASE):
        expected = OmegaConf.to_container(hydra_compose(CONFIG_NAME, overrides), resolve=True)
    for _ in range(2):  # the second time from what is kept
        assert composer.compose(overrides).plain == expected


VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["0.5", "1e-3", "word", "'1'", "''", "nan"])
NAMES = ["run.seed", "run.tokens", "optimizer.betas", "routing.capacity", "data.options", "data.options.x", "log"]
OTHERS = ["run.eval_tokens=${run.seed}", "run={seed:3}", "+data.options.y=1", "++run.seed=8", "~data.options.x"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES | st.lists(VALUES, max_size=2)) | st.sampled_from(OTHERS)))
def test_values_set_without_omegaconf_are_those_that_it_sets(drawn):
    config = OmegaConf.create(to_plain(RunConfig(data=DataConfig(options={"x": 1}))), flags={"struct": True})
    written = [item if isinstance(item, str) else f"{item[0]}={as_text(item[1])}" for item in drawn]
    overrides = OverridesParser.create().parse_overrides(written)
    quick = with_plain_values(OmegaConf.to_container(config), overrides)
    simple = not any(isinstance(item, str) or item[0] in ("data.options", "log", "routing.capacity") for item in drawn)
    assert (quick is not None) >= simple
    if quick is not None:
        assert repr(quick) == repr(with_values(config, overrides))  # nan is not equal to itself


def test_a_recipe_chooses_several_groups_at_once_and_each_can_be_chosen_otherwise(composer):
    recipe, parts = composer.run_config(["recipe=pico"]), composer.run_config(
        ["model=pico", "data=parliament_news_512", "optimizer=pico", "run=pico"]
    )
    assert recipe == parts
    assert recipe.vocab_size == 512 and recipe.data.options == composer.run_config([]).data.options
    micro, other = composer.run_config(["model=micro"]), composer.run_config(["recipe=pico", "model=micro"])
    assert other.model.width == micro.model.width and other.optimizer == recipe.optimizer
    assert composer.run_config(["recipe=none"]) == composer.run_config([])


def test_points_composed_one_after_the_other_do_not_touch_each_other(composer):
    composer.run_config(["routing.num_experts=9"])
    assert composer.run_config([]).routing.num_experts == 4


def test_group_files_are_deltas_of_the_dataclass_defaults(composer):
    config = composer.run_config(["routing=sequence_top2_frozen"])
    assert (config.routing.unit, config.routing.k) == (Unit.SEQUENCE, 2)
    assert config.routing.router_state is RouterState.FROZEN
    assert config.routing.renormalise == RunConfig().routing.renormalise


@pytest.mark.parametrize(
    "choice",
    sorted(
        f"{group}={path.stem}"
        for group in ("task", "model", "optimizer", "run", "log", "match")  # routings: test_golden.py
        for path in (CONF / group).glob("*.yaml")
    ),
)
def test_every_committed_choice_composes_into_a_valid_run(composer, choice):
    task = ["task=images"] if choice == "model=vit" else []
    assert composer.run_config([*task, choice]).key


def test_one_word_changes_the_task_and_all_that_goes_with_it(composer):
    config = composer.run_config(["task=images", "model.patch=14", "model.context=4", "run.steps=3"])
    assert (config.task, config.data.recipe, config.model.context, config.run.steps) == ("images", "digits", 4, 3)
    assert composer.run_config(["task=language"]) == composer.run_config([])


def test_match_gives_the_dense_twin_of_a_point(composer):
    twin = composer.run_config(["routing=token_top2", "match=active_params"])
    assert twin.routing.selection is Selection.DENSE
    assert twin.routing.expert_size > RunConfig().model.hidden


def test_capital_false_is_false_and_a_quoted_one_is_refused(composer):
    assert composer.run_config(["run.compile=False"]) == composer.run_config([])
    assert sentence(composer, "run.compile='False'") == "run.compile must be true or false, not 'False'"


def test_misspelt_keys_and_choices_get_a_suggestion(composer):
    assert sentence(composer, "run.sed=1") == "unknown key run.sed; did you mean run.seed?"
    assert sentence(composer, "seed=1") == "unknown key seed; did you mean run.seed?"
    assert sentence(composer, "routin=dense") == "unknown key routin; did you mean routing?"
    assert sentence(composer, "+routing.kk=1") == "unknown key routing.kk; did you mean routing.k"
    assert sentence(composer, "routing=token_tpo2") == "routing=token_tpo2 is unknown; did you mean routing=token_top2?"
    assert sentence(composer, "data=zzz").startswith("data=zzz is unknown; choose one of ")
    assert "choose one of token, segment, sequence" in sentence(composer, "routing.unit=sequense")


def test_overrides_that_cannot_be_applied_are_one_sentence(composer):
    assert sentence(composer, "run.seed=[1").startswith("cannot read the override run.seed=[1")
    assert sentence(composer, "+run.seed=2") == "run.seed has a value already; write run.seed=VALUE, without +"
    assert sentence(composer, "routing={kk: 1}") == "unknown key routing.kk; did you mean routing.k?"
    assert "run.foo" in sentence(composer, "run.tokens=${run.foo}")
    assert sentence(composer, "run.tokens=???").startswith("run.tokens is not set")
    assert "add -m to train each" in sentence(composer, "run.seed=1,2")


def test_points_without_meaning_are_refused(composer):
    assert "cannot be picked from N=1" in sentence(composer, "routing.num_experts=1", "routing.k=2")
    assert "model.vocab_size=100" in sentence(composer, "model.vocab_size=100")
    # The point is refused even where its dense twin would be fine.
    assert "N=1" in sentence(composer, "routing.num_experts=1", "routing.k=2", "match=active_params")


def test_settings_of_the_command_are_no_part_of_the_identity(composer):
    changed = composer.run_config(["retry_failed=true", "skip_invalid=true", "log.wandb=offline", "data.root=/else"])
    assert changed.key == composer.run_config([]).key


def test_run_config_refuses_a_section_that_does_not_exist():
    with pytest.raises(Exception, match="unknown key colour"):
        run_config(OmegaConf.create({"colour": {"red": 1}}))
