"""What prepare says at its end: what was read and what was not, what became of it, and what is of no use."""

from collections.abc import Iterator, Sequence

from moe_study.data.sampler import windows_in
from moe_study.data.shards import PreparedCorpus, Split

SHOWN = 20  # domains that are listed


def summary(corpus: PreparedCorpus, contexts: Sequence[int] = ()) -> Iterator[str]:
    """Lines about a prepared corpus; `contexts` are those (model.context) that it is known to be used at."""
    yield from _read_lines(corpus)
    yield from _domain_lines(corpus)
    for context in contexts:
        yield from unused_domains(corpus, context)


def unused_domains(corpus: PreparedCorpus, context: int) -> Iterator[str]:
    """A sentence on the domains with too little text for one window of `context` tokens, none if there are none."""
    for split, fate in ((corpus.train, "trained on"), (corpus.validation, "judged")):
        enough = {
            (shard.language, shard.topic) for shard in split.shards if windows_in(len(shard.tokens), context)
        }
        every = {(shard.language, shard.topic) for part in (corpus.train, corpus.validation) for shard in part.shards}
        if short := sorted(every - enough):
            names = [f"{corpus.languages[language]}/{corpus.topics[topic]}" for language, topic in short]
            yield (
                f"{corpus.name}: {len(short)} of {len(every)} domains are never {fate}, having less than the "
                f"{context + 1} tokens that model.context={context} asks for in {split.name}: {_listed(names)}; "
                "give more text, join domains, or lower model.context"
            )


def _read_lines(corpus: PreparedCorpus) -> Iterator[str]:
    read = corpus.read
    if read is None:  # prepared by an older version
        return
    yield f"read: {read['files']:,} files, {read['documents']:,} documents, {read['bytes']:,} bytes of text"
    if read["duplicates"]:
        yield f"left out: {read['duplicates']:,} duplicates"
    for reason, entry in read["left_out"].items():
        examples = ", ".join(entry["examples"])
        more = ", ..." if len(entry["examples"]) < entry["count"] else ""
        yield f"left out: {entry['count']:,} {reason}" + (f" ({examples}{more})" if examples else "")
    yield from (f"note: {sentence}" for sentence in read["notes"])


def _domain_lines(corpus: PreparedCorpus) -> Iterator[str]:
    counts = {split.name: _counts(split) for split in (corpus.train, corpus.validation)}
    domains = sorted({domain for found in counts.values() for domain in found})
    domains.sort(key=lambda domain: -sum(found.get(domain, (0, 0))[1] for found in counts.values()))
    rows = [("language", "topic", "train documents", "tokens", "validation documents", "tokens")]
    for language, topic in domains[:SHOWN]:
        numbers = [f"{n:,}" for found in counts.values() for n in found.get((language, topic), (0, 0))]
        rows.append((corpus.languages[language], corpus.topics[topic], *numbers))  # type: ignore[arg-type]
    totals = [f"{sum(pair[i] for pair in found.values()):,}" for found in counts.values() for i in (0, 1)]
    rows.append(("all", "", *totals))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if len(domains) > SHOWN:
        rows.insert(-1, (f"... and {len(domains) - SHOWN} more", "", "", "", "", ""))
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join([*left, *right]).rstrip()


def _counts(split: Split) -> dict[tuple[int, int], tuple[int, int]]:
    """Documents and tokens of each domain."""
    return {(shard.language, shard.topic): (shard.documents, len(shard.tokens)) for shard in split.shards}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
