"""One run from its configuration to its result, going on from where an earlier process left it."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch

from moe_study.audit.audit import RUN_TRIALS, Audit, audit
from moe_study.audit.cache import AuditCache
from moe_study.data import PreparedCorpus, keep_tokenizer
from moe_study.design.config import RunConfig
from moe_study.errors import ConfigError, StudyError, reason_of
from moe_study.runs.folder import RunFolder, State
from moe_study.training import checkpoint
from moe_study.training.device import arithmetic, configure, device_name, other_arithmetic, peak_memory_bytes
from moe_study.training.distributed import ALONE, Ranks, joined_ranks
from moe_study.training.evaluation import Evaluation, evaluate
from moe_study.training.loop import Trainer, due
from moe_study.training.metrics import Diverged
from moe_study.training.models import build_model
from moe_study.training.recorder import Recorder, Silent
from moe_study.training.result import make_result
from moe_study.training.routes import RoutesOverTraining
from moe_study.training.signals import Preempted, StopRequest
from moe_study.training.tasks import task_of


def train(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    """Train to the end, or go on from the newest checkpoint in `folder`; the content of result.json.

    The caller has claimed and started the folder, and records what is raised: StudyError for what the user can
    mend, anything else for a defect. A run that has its result is not trained again. One that a signal stops
    (its state is saved) or whose loss stops being finite ends here without a result, and only "key", "state"
    and "steps" come back.
    """
    if (result := folder.result()) is not None:
        return result
    with joined_ranks() as ranks:
        return _train(config, folder, ranks)


def _train(config: RunConfig, folder: RunFolder, ranks: Ranks) -> dict[str, Any]:
    recorder = Recorder(config, folder) if ranks.first else Silent(config, folder)
    try:
        with StopRequest() as stop:
            result = Session(config, folder, recorder, stop, ranks).run()
    except Preempted as end:
        folder.preempt(end.step)
        return _ended(config, recorder, State.PREEMPTED, end)
    except Diverged as end:
        folder.diverge(str(end), end.step)
        return _ended(config, recorder, State.DIVERGED, end)
    except BaseException:
        recorder.close(State.FAILED)
        raise
    recorder.close(State.DONE, result)
    return result


def raise_if_not_compiled(error: Exception) -> None:
    """A StudyError where `error` is torch.compile's."""
    if isinstance(error, torch._dynamo.exc.TorchDynamoException):
        reason = reason_of(error)
        raise StudyError(
            f"torch.compile failed ({reason}); use run.compile=false, or install what it lacks: on a CPU it needs a"
            " C++ compiler and Python's headers"
        ) from error


def _ended(config: RunConfig, recorder: Recorder, state: State, end: Preempted | Diverged) -> dict[str, Any]:
    recorder.close(state, message=str(end))
    return {"key": config.key, "state": str(state), "steps": end.step}


class Session:
    """What one process does for one run, from opening the data to writing the result."""

    def __init__(
        self, config: RunConfig, folder: RunFolder, recorder: Recorder, stop: StopRequest, ranks: Ranks = ALONE
    ):
        self.config, self.folder, self.recorder, self.stop, self.ranks = config, folder, recorder, stop, ranks
        self.device = configure(config)
        # First, so that a defect of a routing costs no training.
        measured = audit(config, RUN_TRIALS, AuditCache(folder.audits_folder)) if ranks.first else None
        self.causality: Audit = ranks.gathered(measured)[0]
        self.task = task_of(config)
        self.corpus = self.task.open(config)
        if self.corpus.vocab_size > config.vocab_size:
            raise ConfigError(
                f"model.vocab_size={config.vocab_size} is too small for the data's {self.corpus.vocab_size} token"
                " ids; raise it, or leave it out"
            )
        self.arithmetic = arithmetic(self.device, ranks.size)
        self.warnings: list[str] = []  # what a reader of the result should know
        folder.add_provenance(
            data_fingerprint=self.corpus.fingerprint, device=device_name(self.device), arithmetic=self.arithmetic
        )
        if isinstance(self.corpus, PreparedCorpus) and ranks.first:
            keep_tokenizer(self.corpus, folder)
        model = build_model(config, self.corpus.end_of_text).to(self.device)
        if config.run.compile:
            model.compile()  # in place, so that the names of its parameters stay as they are
        self.trainer = Trainer(config, model, self.task.training(config, self.corpus), self.device, ranks)
        self.routes = RoutesOverTraining(config, self.corpus, folder, self.device, ranks.first)
        self.saved_step = 0

    def run(self) -> dict[str, Any]:
        """Train what is left to train, evaluate, and write the result."""
        self._resume()
        try:
            self._train()
            return self._finish()
        except Diverged as end:
            self._record_training(end.step)
            raise

    def _train(self) -> None:
        trainer, first = self.trainer, self.trainer.step
        if first == 0:
            self.routes.keep_if_due(trainer.model, first)
        trainer.watch.start()
        while trainer.step < self.config.total_steps:
            if signal := self.ranks.agreed(self.stop.received):
                with self._paused():
                    self._save()
                raise Preempted(signal, trainer.step)
            try:
                trainer.train_step()
            except Exception as error:
                trainer.losses.check(trainer.step)  # weights that are not finite can fail in any way
                raise_if_not_compiled(error)
                raise
            if trainer.step == first + 1:
                trainer.watch.mark(trainer.step)
            self._after_step()
        trainer.watch.stop()

    def _resume(self) -> None:
        newest = checkpoint.load_newest(
            self.folder.checkpoint_folder, key=self.config.key, fingerprint=self.corpus.fingerprint
        )
        if newest is not None:
            self.trainer.load_state_dict(newest)
        self._check_same_step()
        self.saved_step = self.trainer.step
        self.folder.add_provenance(first_step=self.trainer.step)  # from here on the code of this attempt
        self.recorder.begin(self.trainer.step)
        self.routes.begin(self.trainer.step)
        if newest is not None and "arithmetic" in newest:  # older checkpoints do not say
            self.warnings = newest["warnings"]
            if (warning := other_arithmetic(newest["arithmetic"], self.arithmetic)) is not None:
                self.recorder.say(f"warning: {warning}")
                self.warnings.append(f"step {self.trainer.step}: {warning}")

    def _check_same_step(self) -> None:
        steps = self.ranks.gathered(self.trainer.step)
        if len(set(steps)) > 1:
            raise StudyError(
                f"the processes of this run found different checkpoints (steps {', '.join(map(str, steps))});"
                f" {self.folder.path} must be one folder that all of them see"
            )

    def _after_step(self) -> None:
        """Whatever is due after the step just done."""
        step, last = self.trainer.step, self.trainer.step == self.config.total_steps
        log, run = self.config.log, self.config.run
        self.recorder.progress(step)
        if last or due(step, log.log_every):
            self.trainer.losses.check(step)
            self._record_training(step)
        if last or due(step, log.routing_every):
            self._record_routing()
        if self.trainer.gradients_due(step):
            self.trainer.losses.check(step)
            self.recorder.record(*self.trainer.gradients.read())
        if not last and due(step, run.eval_every):
            with self._paused():
                self._record_validation(self._evaluate(detail=False))
        if not last and self.routes.due(step):  # before the checkpoint, which would otherwise be ahead of them
            with self._paused():
                self.routes.keep_if_due(self.trainer.model, step)
        if not last and due(step, log.checkpoint_every):
            with self._paused():
                self._save()

    @contextlib.contextmanager
    def _paused(self) -> Iterator[None]:
        """What happens inside is not training time, and never sees a model whose loss is not finite."""
        self.trainer.losses.check(self.trainer.step)
        self.trainer.watch.stop()
        yield
        self.trainer.watch.start()

    def _record_training(self, step: int) -> None:
        """Close the window of training measures, as the record of `step`."""
        if (means := self.trainer.losses.read()) is not None:
            speed, seconds = self.trainer.watch.lap(self.trainer.step), self.trainer.watch.seconds
            position = {"kind": "train", "step": step, "tokens": step * self.config.tokens_per_step}
            pace = {"lr": self.trainer.rate(step - 1), "tokens_per_second": speed, "seconds": seconds}
            self.recorder.record({**position, **means, **pace})

    def _record_routing(self) -> None:
        step = self.trainer.step
        self.trainer.routing.collect(self.ranks, self.device)
        self.recorder.record(*({"kind": "routing", "step": step, **part} for part in self.trainer.routing.read()))

    def _evaluate(self, *, detail: bool) -> Evaluation:
        config, trainer = self.config, self.trainer
        evaluation = evaluate(
            trainer.model,
            self.task.validation(config, self.corpus),
            self.corpus,
            self.device,
            precision=config.run.precision,
            label=config.routing.label,
            detail=detail or config.run.compile,  # one form of the forward pass to compile, not two
            ranks=self.ranks,
        )
        if not math.isfinite(evaluation.perplexity):
            raise Diverged(f"the validation loss after step {trainer.step}", trainer.step)
        return evaluation

    def _record_validation(self, evaluation: Evaluation) -> None:
        trainer = self.trainer
        position = {"kind": "validation", "step": trainer.step, "tokens": trainer.tokens}
        self.recorder.record({**position, "loss": evaluation.loss, "seconds": trainer.watch.seconds})

    def _state(self) -> dict[str, Any]:
        self.trainer.peak_memory = max(self.trainer.peak_memory, peak_memory_bytes(self.device))
        return {
            "key": self.config.key,
            "data_fingerprint": self.corpus.fingerprint,
            "end_of_text": self.corpus.end_of_text,
            "arithmetic": self.arithmetic,
            "warnings": self.warnings,
            **self.trainer.state_dict(),
        }

    def _save(self) -> None:
        """A checkpoint of the current step, unless there is one."""
        if self.trainer.step > self.saved_step:
            folder, keep = self.folder.checkpoint_folder, self.config.log.keep_checkpoints
            self.recorder.flush()
            state = self._state()
            if self.ranks.first:
                checkpoint.save(folder, state, keep=keep)
            self.saved_step = self.trainer.step

    def _finish(self) -> dict[str, Any]:
        """Keep the trained model, evaluate it in detail, and write everything that analysis reads."""
        if self.trainer.step > self.saved_step:
            self.recorder.flush()
            state = self._state()
            self.folder.forget_measured()  # before the final weights: else a kill in between would leave it there
            if self.ranks.first:
                checkpoint.save_final(self.folder.checkpoint_folder, state)
        evaluation = self._evaluate(detail=True)
        if not any(r["kind"] == "validation" and r["step"] == self.trainer.step for r in self.folder.metrics()):
            self._record_validation(evaluation)  # an earlier process may have died right after this line
        self.folder.write_activations(evaluation.routing)
        self.routes.keep_if_due(self.trainer.model, self.trainer.step)
        result = make_result(self.config, self.causality, self.corpus.fingerprint, self.trainer, evaluation)
        result["warnings"] = self.warnings
        self.folder.finish(result)
        if self.ranks.first:
            checkpoint.delete_steps(self.folder.checkpoint_folder)
        return result
