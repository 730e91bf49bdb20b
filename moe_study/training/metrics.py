"""What training leaves on its way: sums that stay on the device, and the records made from them.

Nothing here waits for the device except the two `read` methods, which the loop calls every few steps.

Shape suffixes: M measures of one step (loss, gradient norm, balancing terms), L mixture layers, E experts.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from moe_study.model.forward_pass import RoutingStats
from moe_study.training.distributed import Ranks
from moe_study.training.routing_sums import RoutingSums


class Diverged(Exception):
    """A loss is no longer a finite number: the run ends here, and its curve is kept."""

    def __init__(self, what: str, step: int):
        super().__init__(f"{what} is not finite")
        self.step = step  # steps whose loss was finite


class LossWindow:
    """Means of loss, gradient norm and balancing terms over the steps since the last record.

    Summed in float64 on the device. Steps from the first non-finite loss on are not counted, so the number of
    counted steps tells when that was, without a look at the device in each step.
    """

    def __init__(self, names: Sequence[str] = ()):
        self.names = list(names)
        self.added = 0
        self._sums_M: Tensor | None = None  # the last entry counts the finite steps
        self._alive: Tensor | None = None

    def add(self, loss: Tensor, grad_norm: Tensor, aux: dict[str, Tensor]) -> None:
        """Count one step; all are detached scalars on the device, `loss` in nats per token."""
        if self._sums_M is None or self._alive is None:
            self.names = sorted(aux)
            self._sums_M = torch.zeros(len(aux) + 3, dtype=torch.float64, device=loss.device)
            self._alive = torch.ones((), dtype=torch.bool, device=loss.device)
        self._alive = self._alive & torch.isfinite(loss)
        one = torch.ones_like(loss)
        values_M = torch.stack([loss, grad_norm.to(loss), *(aux[name].to(loss) for name in self.names), one])
        self._sums_M = self._sums_M + torch.where(self._alive, values_M.double(), 0.0)
        self.added += 1

    def check(self, step: int) -> None:
        """Raise `Diverged` if the loss stopped being finite; `step` steps are done. Waits for the device."""
        if self._sums_M is not None and not bool(self._alive):
            finite = step - self.added + int(self._sums_M[-1])
            raise Diverged(f"the loss of step {finite + 1}", finite)

    def read(self) -> dict[str, Any] | None:
        """The means as a part of a "train" record; starts anew. None without a step. Waits for the device."""
        if self._sums_M is None:
            return None
        *sums, finite = self._sums_M.tolist()
        self._sums_M, self.added = torch.zeros_like(self._sums_M), 0
        if finite == 0:
            return None
        loss, grad_norm, *aux = (finite_or_none(value / finite) for value in sums)
        return {"loss": loss, "aux": dict(zip(self.names, aux, strict=True)), "grad_norm": grad_norm}

    def state_dict(self) -> dict[str, Any]:
        return {"names": self.names, "added": self.added, "sums": self._sums_M, "alive": self._alive}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.names, self.added = list(state["names"]), int(state["added"])
        self._sums_M = None if state["sums"] is None else state["sums"].to(device)
        self._alive = None if state["alive"] is None else state["alive"].to(device)


class RoutingWindow:
    """Expert shares, rows a token and router entropy by layer, over the steps since the last record."""

    def __init__(self) -> None:
        self._sums = RoutingSums()

    def add(self, stats: Sequence[RoutingStats]) -> None:
        """Count one forward pass."""
        for layer in stats:
            known = torch.isfinite(layer.entropy)  # it is measured in some passes only
            entropy = torch.where(known, layer.entropy, 0.0).double() * layer.tokens
            self._sums.add(layer, {"entropy": entropy, "entropy_tokens": known.double() * layer.tokens})

    def collect(self, ranks: Ranks, device: torch.device) -> None:
        """Bring what all ranks have counted to the first; the others have none then. All call it together."""
        if ranks.size == 1:
            return
        parts = ranks.gathered(self._sums.on(torch.device("cpu")))
        self._sums = RoutingSums()
        for part in parts if ranks.first else ():
            self._sums.merge(part.on(device))

    def read(self) -> list[dict[str, Any]]:
        """One part of a "routing" record for each layer, in order; starts anew. Waits for the device."""
        records = []
        for layer, sums in self._sums:
            kept = [float(count) for count in sums["kept_E"].tolist()]
            total, entropy_tokens = sum(kept), float(sums["entropy_tokens"])
            records.append(
                {
                    "layer": layer,
                    "share": [count / total if total else 0.0 for count in kept],
                    **self._sums.per_token(layer),
                    "entropy": float(sums["entropy"]) / entropy_tokens if entropy_tokens else None,
                }
            )
        self._sums = RoutingSums()
        return records

    def state_dict(self) -> dict[str, Any]:
        return self._sums.state_dict()

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self._sums.load_state_dict(state, device)


class Stopwatch:
    """Wall-clock seconds of training alone, across resumes; evaluation and checkpoints stop it.

    The first step of each process (compilation, first allocations) is training time like any other, but does
    not count for the throughput: the loop calls `mark` after it.
    """

    def __init__(self, device: torch.device, tokens_per_step: int):
        self._device = device
        self._tokens_per_step = tokens_per_step
        self._stopped_at = 0.0  # seconds until the last stop
        self._since: float | None = None
        self._mark: tuple[int, float] | None = None  # steps and seconds at the start of the current lap
        self._laps_tokens = 0
        self._laps_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Training time so far; exact when the device is idle."""
        return self._stopped_at + (0.0 if self._since is None else time.perf_counter() - self._since)

    @property
    def tokens_per_second(self) -> float | None:
        """Over all laps; None before the first."""
        return self._laps_tokens / self._laps_seconds if self._laps_seconds > 0 else None

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Waits for the device, so that work still in its queue counts as training."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._stopped_at, self._since = self.seconds, None

    def mark(self, step: int) -> None:
        """Begin a lap after `step` steps, and forget an unfinished one."""
        self._mark = (step, self.seconds)

    def lap(self, step: int) -> float | None:
        """Close the lap after `step` steps, begin the next, and return its tokens a second, if any."""
        if self._mark is None or step == self._mark[0]:
            self.mark(step)
            return None
        tokens = (step - self._mark[0]) * self._tokens_per_step
        seconds = self.seconds - self._mark[1]
        self.mark(step)
        self._laps_tokens += tokens
        self._laps_seconds += seconds
        return tokens / seconds

    def state_dict(self) -> dict[str, Any]:
        """Call when stopped."""
        return {
            "seconds": self._stopped_at,
            "laps_tokens": self._laps_tokens,
            "laps_seconds": self._laps_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._stopped_at = state["seconds"]
        self._laps_tokens, self._laps_seconds = state["laps_tokens"], state["laps_seconds"]


def finite_or_none(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return value if math.isfinite(value) else None
