"""What a waiting command shows."""

from moe_study.launch.slurm.scheduler import QueuedTask
from moe_study.launch.slurm.survey import Survey
from moe_study.launch.slurm.table import summary
from moe_study.runs.status import State


def test_counts_and_what_is_waited_for():
    states = {"a": State.RUNNING, "b": State.QUEUED, "c": State.QUEUED, "d": State.DONE}
    live = {
        "a": [QueuedTask("1", 0, "RUNNING", "x", "None")],
        "b": [QueuedTask("1", 1, "PENDING", "x", "Resources")],
        "c": [QueuedTask("1", 2, "PENDING", "x", "Resources")],
    }
    assert summary(states, Survey(live)) == "2 queued, 1 running, 1 done; waiting for: Resources (2)"
    assert summary(states, Survey()) == "2 queued, 1 running, 1 done"
    silent = Survey(live, silence="Unable to contact slurm controller")
    assert summary(states, silent) == "2 queued, 1 running, 1 done; the scheduler does not answer"
