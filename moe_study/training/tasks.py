"""What differs between language and images: where batches come from. Models and losses share one interface."""

from collections.abc import Iterator
from typing import Any, Protocol

from moe_study.data import Batch, TrainSampler, open_corpus, validation_batches
from moe_study.data.images import ImageSampler, image_batches, open_images
from moe_study.design.config import RunConfig
from moe_study.training.loop import Sampler


class Task(Protocol):
    """Data of one task. `open` gives a corpus or image set, which the other two are given back."""

    def open(self, config: RunConfig) -> Any: ...

    def training(self, config: RunConfig, data: Any) -> Sampler: ...

    def validation(self, config: RunConfig, data: Any) -> Iterator[Batch]: ...


class Language:
    """Windows of text and their next tokens."""

    def open(self, config: RunConfig) -> Any:
        return open_corpus(config.data)

    def training(self, config: RunConfig, data: Any) -> Sampler:
        return TrainSampler(data.train, config.model.context, config.run.batch_size, config.run.seed)

    def validation(self, config: RunConfig, data: Any) -> Iterator[Batch]:
        return validation_batches(data.validation, config.model.context, config.run.eval_batch, config.run.eval_tokens)


class Images:
    """Images and their classes; a patch counts as a token."""

    def open(self, config: RunConfig) -> Any:
        return open_images(config.data)

    def training(self, config: RunConfig, data: Any) -> Sampler:
        return ImageSampler(data.train, config.run.batch_size, config.run.seed)

    def validation(self, config: RunConfig, data: Any) -> Iterator[Batch]:
        return image_batches(data.validation, config.run.eval_batch, config.run.eval_tokens // config.model.context)


def task_of(config: RunConfig) -> Task:
    """The task of a configuration."""
    return Images() if config.task == "images" else Language()
