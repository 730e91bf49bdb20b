"""Corpora: recipes, tokenizers, shards and the sampler.

    corpus = prepare(config)                       # once: downloads, tokenizes, writes shards
    corpus = open_corpus(config)                   # every run: memory-maps what is there
    TrainSampler(corpus.train, context, batch_size, seed).batch(step)
    validation_batches(corpus.validation, context, batch_size, max_tokens)
"""

from moe_study.data.preparation import check, prepare
from moe_study.data.sampler import Batch, TrainSampler, validation_batches
from moe_study.data.shards import PreparedCorpus, Shard, Split, corpus_folder, open_corpus

__all__ = [
    "Batch",
    "PreparedCorpus",
    "Shard",
    "Split",
    "TrainSampler",
    "check",
    "corpus_folder",
    "open_corpus",
    "prepare",
    "validation_batches",
]
