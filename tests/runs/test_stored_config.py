"""config.yaml: whatever is wrong with it is one sentence that names it and says what to do."""

import pytest
import yaml

from moe_study.design.config import LogConfig, RunConfig, RunSettings
from moe_study.design.plain import to_plain
from moe_study.errors import DataError, StudyError
from moe_study.runs import stored_config

CONFIG = RunConfig(run=RunSettings(steps=10), log=LogConfig(runs_dir="elsewhere"))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / CONFIG.key / "config.yaml"
    stored_config.write(path, CONFIG)
    return path


def test_what_is_written_is_read(file):
    assert stored_config.read(file) == CONFIG
    assert stored_config.read_plain(file) == to_plain(CONFIG)


def test_it_is_written_once(file):
    other = RunConfig(run=CONFIG.run, log=LogConfig(runs_dir="here"))
    stored_config.write(file, other)  # the same run
    assert stored_config.read(file).log.runs_dir == "elsewhere"


@pytest.mark.parametrize("content", ["a: [", "just text", "", "model: {}", b"\xff\xfe\x00", "model: 3\nrouting: 4"])
def test_a_damaged_file_is_named(file, content):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (stored_config.read, stored_config.read_plain):
        with pytest.raises(DataError, match=rf"config\.yaml is damaged.*restore it, or move .*{CONFIG.key} away"):
            read(file)


def test_a_folder_without_it_is_not_a_runs_folder(tmp_path):
    with pytest.raises(DataError, match=r"is not a run's folder: it has no config\.yaml"):
        stored_config.read(tmp_path / "config.yaml")


def test_a_setting_that_this_version_does_not_know_is_named(file):
    plain = to_plain(CONFIG)
    plain["routing"]["colour"] = "blue"
    file.write_text(yaml.safe_dump(plain))
    with pytest.raises(StudyError, match=r"config\.yaml does not fit this version of moe_study: .*routing\.colour"):
        stored_config.read(file)
    assert stored_config.read_plain(file)["routing"]["colour"] == "blue"


WHOLE = yaml.safe_dump(to_plain(CONFIG), sort_keys=False)
BY_HAND = {
    "in another order": yaml.safe_dump(to_plain(CONFIG)),
    "a comment": WHOLE.replace("model:", "# mine\nmodel:"),
    "a document's mark": f"---\n{WHOLE}...\n",
    "Windows' line ends": WHOLE.replace("\n", "\r\n"),
    "an anchor and its alias": WHOLE.replace("seed: 0", "seed: &nought 0").replace("log:", "note: *nought\nlog:"),
    "quotes over several lines": WHOLE.replace("runs_dir: elsewhere", 'runs_dir: "else\nrun: where"'),
    "brackets over several lines": "note: [a,\nb: c]\n" + WHOLE,
    "a section twice": WHOLE + "optimizer:\n  lr: 1.0\n",
    "no section at all": "note:nothing\n" + WHOLE,
    "one line": WHOLE.replace("task: language", "task: language # by hand"),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_file_read_by_sections_says_what_it_says_as_a_whole(file, name):
    file.write_text(BY_HAND[name], newline="")
    try:
        expected = yaml.safe_load(BY_HAND[name])
    except yaml.YAMLError:
        with pytest.raises(DataError, match="is not YAML"):
            stored_config.read_plain(file)
    else:
        assert stored_config.read_plain(file) == expected


def test_what_a_reader_changes_is_its_own(file):
    stored_config.read_plain(file)["optimizer"]["betas"].append(3)
    stored_config.read_plain(file)["routing"]["k"] = 3
    assert stored_config.read_plain(file) == to_plain(CONFIG)
