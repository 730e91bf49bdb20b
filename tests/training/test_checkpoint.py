import errno
import os
import subprocess
import sys
import zipfile

import pytest
import torch

from moe_study import files
from moe_study.errors import DataError, StudyError
from moe_study.training import checkpoint
from moe_study.training.loop import Trainer
from moe_study.training.models import build_model
from tests.training.doubles import TinySampler, tiny_config


def state(step, **more):
    return {"step": step, "key": "k", "data_fingerprint": "f", "model": {"w": torch.full((1000,), float(step))}} | more


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept_and_the_newest_is_loaded(tmp_path):
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, state(step), keep=2)
    assert names(tmp_path) == ["step-00000010.pt", "step-00000015.pt"]
    loaded = checkpoint.load_newest(tmp_path, key="k", fingerprint="f")
    assert loaded["step"] == 15
    assert torch.equal(loaded["model"]["w"], torch.full((1000,), 15.0))


def test_newest_is_by_number_and_not_by_letter(tmp_path):
    for step in (99_999_999, 100_000_000):  # one digit more than the padding
        checkpoint.save(tmp_path, state(step))
    assert names(tmp_path) == ["step-100000000.pt", "step-99999999.pt"]
    assert checkpoint.load_newest(tmp_path)["step"] == 100_000_000


def test_nothing_saved_is_no_error(tmp_path):
    assert checkpoint.load_newest(tmp_path / "absent") is None


def flip_a_bit_of_a_tensor(path):
    """Change the data of the large tensor, not the pickle, so that nothing but a checksum can notice."""
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda info: info.file_size)
        offset = entry.header_offset + 30
    content = bytearray(path.read_bytes())
    name_length, extra_length = (int.from_bytes(content[offset - 4 + i : offset - 2 + i], "little") for i in (0, 2))
    content[offset + name_length + extra_length + 100] ^= 1
    path.write_bytes(content)


def cut_in_half(path):
    os.truncate(path, path.stat().st_size // 2)


def write_rubbish(path):
    path.write_bytes(b"not a checkpoint")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_bit_of_a_tensor, cut_in_half, write_rubbish, empty])
def test_a_damaged_newest_falls_back_to_the_one_before_with_a_warning(tmp_path, damage):
    checkpoint.save(tmp_path, state(5))
    damage(checkpoint.save(tmp_path, state(10)))
    with pytest.warns(UserWarning, match=r"step-00000010\.pt is damaged"):
        loaded = checkpoint.load_newest(tmp_path)
    assert loaded["step"] == 5


def test_when_all_are_damaged_training_starts_anew_with_warnings(tmp_path):
    cut_in_half(checkpoint.save(tmp_path, state(5)))
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.load_newest(tmp_path) is None


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    torch.save({"format": 1, "evil": Evil()}, tmp_path / "step-00000007.pt")
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.load_newest(tmp_path) is None
    assert not (tmp_path / "pwned").exists()


def test_another_runs_checkpoint_and_changed_data_are_refused_in_words(tmp_path):
    checkpoint.save(tmp_path, state(5))
    with pytest.raises(StudyError, match="belongs to run k, not to other"):
        checkpoint.load_newest(tmp_path, key="other", fingerprint="f")
    with pytest.raises(DataError, match="data changed"):
        checkpoint.load_newest(tmp_path, key="k", fingerprint="other")


def test_the_final_model_is_kept_without_the_optimizer_and_wins_over_steps(tmp_path):
    checkpoint.save(tmp_path, state(5, optimizer={"state": {}}))
    checkpoint.save_final(tmp_path, state(6, optimizer={"state": {}}))
    assert "optimizer" not in checkpoint.load_newest(tmp_path)
    assert checkpoint.load_newest(tmp_path)["step"] == 6
    checkpoint.delete_steps(tmp_path)
    assert names(tmp_path) == ["final.pt"]


@pytest.mark.long
def test_a_process_killed_while_saving_leaves_the_checkpoint_before(tmp_path):
    checkpoint.save(tmp_path, state(5))
    code = (
        "import os, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from moe_study.training import checkpoint\n"
        "save = torch.save\n"
        "def half(value, handle):\n"
        "    handle.write(b'PK half of it'); handle.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "torch.save = half\n"
        "checkpoint.save(Path(sys.argv[1]), {'step': 10})\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert process.returncode == -9
    assert checkpoint.load_newest(tmp_path)["step"] == 5
    checkpoint.save(tmp_path, state(11))
    assert checkpoint.load_newest(tmp_path)["step"] == 11


@pytest.mark.parametrize("room", [0, 3000])
def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoint_before(tmp_path, monkeypatch, room):
    """Full at once, or in the middle of a tensor, where torch hides the reason behind an error of its own."""

    class Disk:
        def __init__(self, *arguments):
            self.handle, self.left = open(*arguments), room  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.handle.close()

        def flush(self):
            self.handle.flush()

        def fileno(self):
            return self.handle.fileno()

        def write(self, content):
            self.left -= len(content)
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.handle.write(content)

    checkpoint.save(tmp_path, state(5))
    with monkeypatch.context() as patch:
        patch.setattr(files, "open", Disk, raising=False)
        with pytest.raises(StudyError, match="disk is full"):
            checkpoint.save(tmp_path, state(10))
    assert names(tmp_path) == ["step-00000005.pt"]
    assert checkpoint.load_newest(tmp_path)["step"] == 5


@pytest.mark.long
def test_a_compiled_mixture_trains_as_a_plain_one_and_its_checkpoint_fits_both(tmp_path):
    """model.compile() in place, as the session does; torch.compile(model) would wrap, and rename parameters."""
    config = tiny_config(tmp_path)
    sampler = TinySampler(config.run.batch_size, 0)
    plain, compiled = (Trainer(config, build_model(config, None), sampler, torch.device("cpu")) for _ in range(2))
    compiled.model.compile(backend="eager")  # what is captured is tested here; generating code is torch's affair
    plain.train_step()
    compiled.train_step()
    assert compiled.losses.read()["loss"] == pytest.approx(plain.losses.read()["loss"], rel=1e-5)
    checkpoint.save(tmp_path, {"key": "", "data_fingerprint": "", **compiled.state_dict()})
    saved = checkpoint.load_newest(tmp_path)
    assert list(saved["model"]) == list(plain.model.state_dict())
    plain.load_state_dict(saved)


def test_random_states_of_every_generator_come_back():
    before = checkpoint.random_states()
    first = torch.rand(3)
    checkpoint.restore_random_states(before)
    assert torch.equal(torch.rand(3), first)


def test_a_fingerprint_stands_for_the_content_of_the_newest_checkpoint_wherever_it_lies(tmp_path):
    assert checkpoint.fingerprint_of_newest(tmp_path) is None
    state = {"step": 1, "key": "k", "model": {"w": torch.ones(3)}}
    checkpoint.save(tmp_path / "a", state)
    one = checkpoint.fingerprint_of_newest(tmp_path / "a")
    checkpoint.save(tmp_path / "b", state)
    assert one is not None and checkpoint.fingerprint_of_newest(tmp_path / "b") == one
    checkpoint.save(tmp_path / "b", {**state, "step": 2, "model": {"w": torch.zeros(3)}})
    assert checkpoint.fingerprint_of_newest(tmp_path / "b") != one
