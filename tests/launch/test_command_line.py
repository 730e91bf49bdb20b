"""The command line of the training: what Hydra would take without a word, or with a traceback, is one sentence."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from moe_study.errors import ConfigError
from moe_study.launch.command_line import read


@pytest.mark.parametrize(
    ("arguments", "as_hydra_takes_them"),
    [
        (["run.seed=1", "-m", "routing=dense"], ["-m", "run.seed=1", "routing=dense"]),
        (["a=1", "--cfg", "job", "b=2", "--resolve"], ["--cfg", "job", "--resolve", "a=1", "b=2"]),
        (["routing=dense", "-cd", "here", "run.seed=2"], ["-cd", "here", "routing=dense", "run.seed=2"]),
        (["hydra.mode=MULTIRUN"], ["hydra.mode=MULTIRUN"]),
        (["-m", "routing=glob(token_*)", "~data.options.x"], ["-m", "routing=glob(token_*)", "~data.options.x"]),
        ([], []),
    ],
)  # fmt: skip
def test_overrides_may_stand_on_both_sides_of_an_option(arguments, as_hydra_takes_them):
    assert read(arguments) == as_hydra_takes_them


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("-m --cfg job", "--cfg shows one configuration and starts nothing: leave --multirun out"),
        ("--multirun --info", "--info shows one configuration and starts nothing: leave --multirun out"),
        ("-r --cfg all", "leave --run out"),
        ("-r -m", "--run and --multirun exclude each other"),
        ("--cfg job --info", "--cfg and --info exclude each other"),
        ("--cfg cat", "invalid choice: 'cat'"),
        ("--resolve", "--resolve is a part of --cfg; add --cfg job"),
        ("-p model routing=dense", "--package is a part of --cfg"),
        ("-cn other", "the primary configuration is always config"),
        ("--shell-completion", "needs install=bash"),
        ("--experimental-rerun x.pickle", "the command that started it does"),
        ("--colour=red", "unknown option --colour=red"),
        ("-m=2", "ignored explicit argument"),
        ("hydra/launcher=slurm", "hydra/launcher=slurm has no effect on a single run"),
        ("-m hydra/launcher=submitit_slurm", "hydra/launcher=slurm joins its jobs"),
        ("-m hydra/launcher=submitit_local", "leave it out: the launcher of this machine trains as many"),
        ("hydra.launcher.workers=2", "add -m"),
        ("job.runs=4", "add -m"),
        ("cluster=example", "cluster=example has no effect on a single run, which trains here; add -m"),
        ("cluster.partition=gpu", "add -m"),
        ("-m +cluster=example", "cluster has a choice already; write cluster=NAME, without +"),
        ("hydra.run.dir=here", "a run lives in log.runs_dir/KEY whatever hydra.run.dir says; set log.runs_dir instead"),
        ("-m hydra.sweep.dir=here", "set log.runs_dir"),
        ("-m hydra.sweep.subdir=${hydra.job.num}", "set log.runs_dir"),
        ("++hydra.output_subdir=.hydra", "set log.runs_dir"),
        ("hydra.job.chdir=true", "does not change its working folder"),
        ("+hydra.job.env_set.OMP_NUM_THREADS=2", "set the variables of the command itself"),
        ("hydra.job.name=mine", "hydra.job.name changes nothing here"),
        ("hydra.verbose=true", "hydra.verbose changes nothing here"),
        ("-m ++hydra.runtime.cwd=/tmp", "hydra.runtime.cwd changes nothing here"),
        ("+hydra.mood=good", "unknown key hydra.mood; --cfg hydra of train.py shows those of Hydra"),
        ("-m +hydra.sweeper.params.routing=dense", "unknown key hydra.sweeper.params.routing"),
        ("~routing", "~routing would silently train the default of every field; write routing=NAME, one of dense,"),
        ("~model=nano", "write model=NAME, one of"),
        ("~model.width", "~model.width would silently train its default; write model.width=VALUE"),
        ("~model.ffn_size", "write model.ffn_size=VALUE"),
        ("~sweep", "write sweep=VALUE"),
        ("routing=[dense,token_top1]", "routing takes one file, not dense,token_top1; to train each, use -m with rou"),
        ("routing=", "routing= is unknown; choose one of dense"),
        ("routing=null", "routing=null is unknown; choose one of dense"),
        ("model=350", "model=350 is unknown; choose one of gpt2_small"),
        ("+routing=dense", "write routing=NAME, without +"),
        ("=3", "=3 has no key"),
        ("routing", "routing: it has no value; write routing=VALUE"),
        ("run..seed=1", "cannot read the override run..seed=1; write KEY=VALUE"),
        (f"run.seed={'9' * 5000}", f"run.seed={'9' * 31}... holds a number of more than 4300 digits; write a smaller"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, said):
    with pytest.raises(ConfigError) as caught:
        read(arguments.split())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["/my texts (1)", "it's", 'a "b" c', "ä&b", "[1", "C:\\x y\\"])
def test_advice_on_quoting_works_when_it_is_followed(text):
    with pytest.raises(ConfigError, match="if its value is a text, write ") as caught:
        read([f"data.options.path={text}#"])
    (advised,) = shlex.split(str(caught.value).partition("if its value is a text, write ")[2])
    assert read([advised]) == [advised]
    assert OverridesParser.create().parse_override(advised).value() == f"{text}#"


def test_what_has_no_effect_may_be_said_where_it_changes_nothing():
    for arguments in (["hydra.job.chdir=false"], ["job.threads_per_run=2"], ["-m", "hydra.launcher.workers=2"]):
        assert read(arguments) == arguments
