"""The copy of the code that jobs import."""

import dataclasses

from moe_study.launch.slurm.snapshot import drop_unused, take_snapshot
from moe_study.runs.job_records import new_submission
from moe_study.runs.provenance import PACKAGE, code_of


def test_a_copy_is_the_code_that_it_was_copied_from_and_is_made_once(tmp_path):
    copy = take_snapshot(tmp_path)
    assert code_of(copy / "moe_study") == code_of(PACKAGE)
    assert (copy / "moe_study" / "launch" / "slurm" / "job.py").read_bytes().startswith(b'"""What a job of SLURM')
    assert not list(copy.rglob("__pycache__"))
    assert take_snapshot(tmp_path) == copy
    assert list(copy.parent.iterdir()) == [copy]


def test_a_copy_goes_with_the_last_job_that_could_import_it(tmp_path):
    copy = take_snapshot(tmp_path)
    submission = new_submission(str(tmp_path), "here", [], {}, max_attempts=1, settings={}, pool={}, code=copy.name)
    drop_unused(tmp_path, [submission])
    assert copy.exists()
    drop_unused(tmp_path, [dataclasses.replace(submission, over=True)])
    assert not copy.exists()
