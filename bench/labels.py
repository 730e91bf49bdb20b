"""How often a corpus's language labels are right: by an identifier that knows nothing of where a text came from.

    pip install py3langid
    python -m bench.labels data=multi_docs               # 1,000 documents of each language, both splits
    python -m bench.labels data=multi_docs --show 20     # and the beginnings of those that it takes for others

Documents are drawn evenly from each language. The identifier chooses among all of its 97 languages. What it disagrees
with is to be read: in short texts full of names of programs it errs more often than labels do.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np

from moe_study.data import PreparedCorpus, Shard, open_corpus
from moe_study.errors import MissingLibrary
from moe_study.sweeps.plan import plan_overrides


def documents(corpus: PreparedCorpus, language: int, number: int) -> Iterator[str]:
    """So many documents of a language, evenly drawn; the same ones each time."""
    found: list[tuple[Shard, int, int]] = []
    for split in (corpus.train, corpus.validation):
        table = split.documents()
        rows = zip(*(table[name].to_pylist() for name in ("shard", "start", "tokens")), strict=True)
        found += [(split.shards[n], start, count) for n, start, count in rows if split.shards[n].language == language]
    chosen = np.random.default_rng(0).permutation(len(found))[:number]
    for place in chosen:
        shard, start, count = found[place]
        yield corpus.tokenizer.decode(shard.tokens[start : start + count - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", help="such as data=multi_docs")
    parser.add_argument("--documents", type=int, default=1000, help="of each language")
    parser.add_argument("--show", type=int, default=0, help="disagreements to print, of each language")
    options = parser.parse_args()
    try:
        import py3langid
    except ImportError:
        raise MissingLibrary("bench.labels needs py3langid; pip install py3langid") from None
    corpus = open_corpus(plan_overrides(options.overrides).runs[0].config.data)
    right = judged = 0
    for number, language in enumerate(corpus.languages):
        said: Counter[str] = Counter()
        for text in documents(corpus, number, options.documents):
            verdict = py3langid.classify(text)[0]
            if verdict != language and said.total() - said[language] < options.show:
                print(f"  {language}, taken for {verdict}: {' '.join(text.split())[:200]}")
            said[verdict] += 1
        right, judged = right + said[language], judged + said.total()
        others = ", ".join(f"{name} {count}" for name, count in said.most_common() if name != language) or "none"
        print(f"{language}: {said[language] / said.total():.2%} of {said.total()} documents (others: {others})")
    print(f"all: {right / judged:.2%} of {judged}", file=sys.stdout)


if __name__ == "__main__":
    main()
