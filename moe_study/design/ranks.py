"""How the sequences of a training step are shared by several processes (ranks) that train one model.

The number of ranks is no part of a run's key: whatever it is, the loss curve is that of one process, to float
tolerance. So ranks share out whole micro-batches, which are the unit of everything that looks beyond one sequence; what
`group=batch` or `choice_scope=batch` chooses from is a micro-batch, on one rank as on many. Where there are fewer
micro-batches than ranks, each micro-batch is split by sequences; a point whose result would depend on that is refused.
"""

from enum import StrEnum

from moe_study.design.causality import verdict
from moe_study.design.config import RunConfig
from moe_study.design.routing import ChoiceScope, Selection
from moe_study.errors import ConfigError


class Sharing(StrEnum):
    """What one rank gets of a step."""

    WHOLE = "whole"  # every `ranks`-th micro-batch
    SPLIT = "split"  # an equal part of the sequences of every micro-batch


def sharing_of(config: RunConfig, ranks: int) -> Sharing:
    """How `ranks` processes share a step. ConfigError where they cannot without changing the result."""
    batch = config.run.batch_size
    micro = config.run.micro_batch or batch
    if batch // micro % ranks == 0:
        return Sharing.WHOLE
    if batch % ranks:
        raise ConfigError(
            f"run.batch_size={batch} sequences cannot be shared evenly by {ranks} processes; make it a multiple of them"
        )
    if why := _needs_whole(config):
        raise ConfigError(
            f"{why}, so a micro-batch of {micro} sequences cannot be split over {ranks} processes without changing the"
            f" result; set run.micro_batch={batch // ranks}, or less, which is another run (one of its own key), or"
            " use fewer processes"
        )
    if micro % ranks:
        raise ConfigError(
            f"micro-batches of {micro} sequences, {batch // micro} a step, cannot be shared evenly by {ranks}"
            f" processes; set run.micro_batch={batch // ranks}"
        )
    return Sharing.SPLIT


def _needs_whole(config: RunConfig) -> str | None:
    """Why a micro-batch must stay whole; None where its sequences could as well be computed apart."""
    routing = config.routing
    if routing.selection is not Selection.DENSE:
        cutoff = routing.selection is Selection.EXPERT_CHOICE and routing.choice_scope is ChoiceScope.CUTOFF
        if verdict(routing, config.model.context).mixes_batch or cutoff:
            return "this routing looks at all sequences of a micro-batch at once"
        if routing.router_noise:
            return "routing.router_noise is drawn for a micro-batch"
    if config.model.dropout:
        return "model.dropout is drawn for a micro-batch"
    return None
