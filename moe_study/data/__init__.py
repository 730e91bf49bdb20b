"""Corpora: recipes, tokenizers, shards and the sampler; and images (task=images).

    corpus = prepare(config)                       # once: downloads, tokenizes, writes shards
    corpus = open_corpus(config)                   # every run: memory-maps what is there
    TrainSampler(corpus.train, context, batch_size, seed).batch(step)
    validation_batches(corpus.validation, context, batch_size, max_tokens)
    fingerprint(config)                            # which data that is, without opening it
    load_run_tokenizer(folder)                     # of a run, from its folder alone

Commands that do not care whether data is text or images use prepare_data and open_data.
"""

from moe_study.data.images import ImageSet, images_fingerprint, open_images, prepare_images
from moe_study.data.preparation import prepare
from moe_study.data.run_tokenizer import keep_tokenizer, load_run_tokenizer
from moe_study.data.sampler import Batch, TrainSampler, validation_batches
from moe_study.data.shards import PreparedCorpus, Shard, Split, corpus_fingerprint, corpus_folder, open_corpus
from moe_study.data.summary import summary, unused_domains
from moe_study.design.config import IMAGE_RECIPES, DataConfig

__all__ = [
    "Batch",
    "ImageSet",
    "PreparedCorpus",
    "Shard",
    "Split",
    "TrainSampler",
    "corpus_folder",
    "fingerprint",
    "keep_tokenizer",
    "load_run_tokenizer",
    "open_corpus",
    "open_data",
    "prepare",
    "prepare_data",
    "summary",
    "unused_domains",
    "validation_batches",
]


def prepare_data(config: DataConfig, *, progress: bool = True) -> PreparedCorpus | ImageSet:
    """Make text or images ready, whichever the recipe gives."""
    ready = prepare_images if config.recipe in IMAGE_RECIPES else prepare
    return ready(config, progress=progress)


def open_data(config: DataConfig) -> PreparedCorpus | ImageSet:
    """Open text or images that are ready; DataError where they are not."""
    return open_images(config) if config.recipe in IMAGE_RECIPES else open_corpus(config)


def fingerprint(config: DataConfig) -> str | None:
    """What a run of this configuration would be trained and judged on, as its result.json names it.

    sha256 over everything that decides the data and over the data itself, wherever it lies. Cheap: reads the
    manifest, not the tokens, which are checked against it when they are opened. None where nothing whole is prepared.
    """
    found = images_fingerprint if config.recipe in IMAGE_RECIPES else corpus_fingerprint
    return found(config)
