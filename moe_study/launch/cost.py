"""What the missing runs of a plan will cost: arithmetic, hours at a speed that was measured, disk."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from moe_study.analysis.format import count, duration
from moe_study.design.accounting import flops_per_token, num_active_params, num_params
from moe_study.design.config import RunConfig
from moe_study.runs.speed import Speed, measured_speeds
from moe_study.sweeps.plan import Plan

BYTES = 4  # of a weight, and of each of Adam's two moments
WITH_MOMENTS = 3 * BYTES  # a checkpoint to go on from holds them, the one of a finished run does not


class Size(NamedTuple):
    """Of one run."""

    params: int
    active_params: int
    flops_per_token: float  # forward
    tokens: int


def size_of(config: RunConfig) -> Size:
    """Nominal, from the configuration alone."""
    tokens = config.total_steps * config.tokens_per_step
    return Size(num_params(config), num_active_params(config), flops_per_token(config), tokens)


@dataclass(frozen=True)
class Cost:
    """Of the runs that are to be trained."""

    runs: int
    flops: float  # forward and backward
    speeds: tuple[Speed, ...]  # of finished runs beside them, by device
    disk_done: int  # bytes that their checkpoints will take once all are done
    disk_most: int  # if all were under way at once

    def hours(self, speed: Speed) -> float:
        """Of one device after another, each run in full use of it."""
        return self.flops / speed.flops_per_second / 3600

    def sentences(self) -> list[str]:
        """Hours and disk, with where the estimate comes from."""
        if not self.runs:
            return []
        estimates = [
            f"about {duration(3600 * self.hours(speed))} of {speed.device}, one run after the other, at"
            f" {count(speed.flops_per_second)} FLOPs per second, the median of {speed.runs} finished"
            f" run{'s' * (speed.runs > 1)} in that folder"
            for speed in self.speeds
        ]
        unknown = "how long that takes is not known: no run is finished in that folder"
        done, most = count(self.disk_done), count(self.disk_most)
        disk = f"checkpoints take {done}B of disk when all are done, {most}B if all ran at once"
        return [*(estimates or [unknown]), disk]

    def as_plain(self) -> dict[str, Any]:
        hours = [
            {"device": s.device, "hours": self.hours(s), "flops_per_second": s.flops_per_second, "from_runs": s.runs}
            for s in self.speeds
        ]
        disk = {"bytes_when_done": self.disk_done, "bytes_at_most": self.disk_most}
        return {"runs": self.runs, "flops": self.flops, "hours": hours, "disk": disk}


def cost_of(plan: Plan) -> Cost:
    """Of the runs that a launcher would start, at the speeds of the finished runs in the same folder."""
    missing = plan.to_start()
    params = [(num_params(run.config), run.config.log.keep_checkpoints) for run in missing]
    return Cost(
        runs=len(missing),
        flops=sum(run.train_flops for run in missing),
        speeds=tuple(measured_speeds(missing[0].config.log.runs_dir)) if missing else (),
        disk_done=sum(BYTES * number for number, _ in params),
        # One more than are kept, while it is being written.
        disk_most=sum(WITH_MOMENTS * number * (kept + 1) for number, kept in params),
    )
