import time
from pathlib import Path

import numpy as np

from moe_study.data import open_corpus, prepare
from tests.fixtures import tiny_data_config


def test_the_tiny_corpus_is_prepared_in_under_a_second_and_found_again_at_once(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path)
    started = time.perf_counter()
    corpus = prepare(config, progress=False)
    assert time.perf_counter() - started < 1
    assert (corpus.languages, corpus.topics) == (["de", "en"], ["news", "parliament"])
    assert len(corpus.train.shards) == len(corpus.validation.shards) == 4
    again = prepare(config, progress=False)
    assert again.fingerprint == corpus.fingerprint == open_corpus(config, verify=True).fingerprint
    np.testing.assert_array_equal(again.train.shards[0].tokens, corpus.train.shards[0].tokens)
