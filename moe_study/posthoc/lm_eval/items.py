"""The questions of the two tasks that ship with the project, made of text at hand: cloze and topic.

    path = cloze_items(corpus, root, 200)      # one JSON object a line: id, context, choices, answer, labels

They are a function of the texts alone, which order, chance and choice hang on by hashes; so runs with different
tokenizers get the same questions, and their answers can be compared one by one.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from moe_study.data.probes import PROBES, ProbeDocument
from moe_study.data.shards import PreparedCorpus
from moe_study.errors import DataError
from moe_study.files import write_text_atomic

VERSION = 1  # goes up when the same texts give other questions
ITEMS = 200  # of each task, unless asked otherwise
CHOICES = 4
CONTEXT_WORDS = 30  # before the word that is asked for
OPENING_WORDS, CONTINUATION_WORDS = 20, 8  # of an article: with both, small vocabularies fit a context of 128 tokens
SHORTEST_WORD = 4  # letters of a word that is asked for
MOST_WORDS = 400  # of one document that are looked at
MOST_DOCUMENTS = 500  # of one domain
NEAREST = 12  # words of like frequency that the wrong choices are drawn from
TOPIC_PROBE = "wiki_topics"
_PLAIN = re.compile(rf"[^\W\d_]{{{SHORTEST_WORD},}}(?!\w)")

Item = dict[str, Any]


class Passage(NamedTuple):
    """One document of a domain."""

    text: str
    language: str
    topic: str


def cloze_items(corpus: PreparedCorpus, root: Path, items: int = ITEMS) -> Path:
    """Questions about the last word of passages of held-out text, the same number from each domain where it has them.

    DataError where the text has no words to ask for.
    """
    texts = (corpus.fingerprint, VERSION, items)
    return _kept(root, "cloze", texts, lambda: _cloze(list(_held_out(corpus)), items), corpus.name)


def topic_items(languages: Sequence[str], root: Path, items: int = ITEMS, *, progress: bool = True) -> Path:
    """Questions about the continuation of encyclopedia articles in those of `languages` that there are; else in all."""
    recipe = PROBES[TOPIC_PROBE]
    source = recipe.open(None, root, progress)
    texts = (source.fingerprint, recipe.version, VERSION, items, tuple(sorted(languages)))
    return _kept(root, "topic", texts, lambda: _topic(list(source.documents()), languages, items), TOPIC_PROBE)


def _kept(root: Path, name: str, texts: tuple[Any, ...], make: Callable[[], list[Item]], origin: str) -> Path:
    """The file of what `make` gives, unless it is there already."""
    path = root / "tasks" / f"{name}-{hashlib.sha256(repr(texts).encode()).hexdigest()[:16]}.jsonl"
    if not path.exists():
        made = make()
        if not made:
            raise DataError(
                f"the text of {origin} gives no questions for the task {name}: it takes more than {CONTEXT_WORDS} words"
                " in a row with blanks between them; name other tasks with --tasks"
            )
        write_text_atomic(path, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in made))
    return path


def _hashed(*parts: str) -> str:
    """What stands for a text in orders and draws, so that nothing hangs on where it was read."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def _in_turn(passages: Sequence[Passage]) -> Iterator[Passage]:
    """From each domain in turn, each in the order of its texts' hashes; every text once."""
    domains: dict[tuple[str, str], dict[str, Passage]] = defaultdict(dict)
    for passage in passages:
        domains[passage.language, passage.topic][_hashed(passage.text)] = passage
    ordered = [[own[key] for key in sorted(own)] for _, own in sorted(domains.items())]
    yield from (passage for turn in zip_longest(*ordered) for passage in turn if passage is not None)


def _question(identity: str, context: str, right: str, wrong: Sequence[str], **labels: str) -> Item:
    """A question whose right answer stands where its hash says."""
    place = int(identity, 16) % (len(wrong) + 1)
    choices = [*wrong[:place], right, *wrong[place:]]
    return {"id": identity[:16], "context": context, "choices": choices, "answer": place, **labels}


# Cloze -----------------------------------------------------------------------------------------------------------


def _held_out(corpus: PreparedCorpus) -> Iterator[Passage]:
    """The first documents of each domain of the validation split; they stand in the order of their texts' hashes."""
    index = corpus.validation.documents().to_pydict()
    seen: Counter[int] = Counter()
    for number, start, tokens in zip(index["shard"], index["start"], index["tokens"], strict=True):
        seen[number] += 1
        if seen[number] <= MOST_DOCUMENTS:
            shard = corpus.validation.shards[number]
            ids = [i for i in shard.tokens[start : start + tokens].tolist() if i != corpus.end_of_text]
            text = corpus.tokenizer.decode(ids)
            yield Passage(text, corpus.languages[shard.language], corpus.topics[shard.topic])


def _cloze(passages: Sequence[Passage], items: int) -> list[Item]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for passage in passages:
        counts[passage.language].update(word for _, word in _words_to_ask(passage.text, CONTEXT_WORDS))
    alike = {language: _Alike(found) for language, found in counts.items()}
    made = (_cloze_of(passage, alike[passage.language]) for passage in _in_turn(passages) if passage.language in alike)
    return list(islice((item for item in made if item is not None), items))


def _words_to_ask(text: str, before: int) -> Iterator[tuple[str, str]]:
    """(the `before` words in front of it, word) for the plain words of a text, in order."""
    words = list(islice(re.finditer(r"\S+", text), MOST_WORDS))
    for place in range(before, len(words)):
        plain = _PLAIN.match(words[place].group())
        if plain and text[words[place - 1].end() : words[place].start()] == " ":
            yield text[words[place - before].start() : words[place - 1].end()], plain.group()


def _cloze_of(passage: Passage, alike: "_Alike") -> Item | None:
    """A question about one word of a passage; None where it has none."""
    possible = list(_words_to_ask(passage.text, CONTEXT_WORDS))
    if not possible:
        return None
    identity = _hashed("cloze", passage.text)
    context, right = possible[int(identity, 16) // CHOICES % len(possible)]
    wrong = alike.wrong(right, identity)
    if len(wrong) < CHOICES - 1:
        return None
    return _question(identity, context, right, wrong, language=passage.language, topic=passage.topic)


class _Alike:
    """The words of one language, those of like frequency, length and case side by side."""

    def __init__(self, counts: Counter[str]) -> None:
        self.words: dict[bool, list[str]] = defaultdict(list)  # by whether they begin with a capital
        for word in sorted(counts, key=lambda word: (counts[word].bit_length(), len(word), _hashed(word))):
            self.words[word[0].isupper()].append(word)
        self.place = {word: place for words in self.words.values() for place, word in enumerate(words)}

    def wrong(self, right: str, identity: str) -> list[str]:
        """CHOICES - 1 other words from the neighbourhood of `right`, as a question's identity draws them."""
        first = max(0, self.place[right] - NEAREST // 2)
        near = self.words[right[0].isupper()][first : first + NEAREST + 1]
        others = [word for word in near if word.casefold() != right.casefold()]
        return sorted(others, key=lambda word: _hashed(identity, word))[: CHOICES - 1]


# Topic -----------------------------------------------------------------------------------------------------------


def _topic(documents: Sequence[ProbeDocument], languages: Sequence[str], items: int) -> list[Item]:
    known = {document.labels["language"] for document in documents}
    wanted = known & set(languages) or known
    passages = [
        Passage(document.text, document.labels["language"], document.labels["topic"])
        for document in documents
        if document.labels["language"] in wanted and _halves(document.text) is not None
    ]
    others: dict[str, list[Passage]] = defaultdict(list)
    for passage in sorted(passages, key=lambda passage: _hashed(passage.text)):
        others[passage.language].append(passage)
    made = (_topic_of(passage, others[passage.language]) for passage in _in_turn(passages))
    return list(islice((item for item in made if item is not None), items))


def _halves(text: str) -> tuple[str, str] | None:
    """The first OPENING_WORDS words of a text and the CONTINUATION_WORDS after them; None where it is shorter."""
    words = list(islice(re.finditer(r"\S+", text), OPENING_WORDS + CONTINUATION_WORDS))
    if len(words) < OPENING_WORDS + CONTINUATION_WORDS:
        return None
    first, last = words[OPENING_WORDS - 1], words[OPENING_WORDS]
    if text[first.end() : last.start()] != " ":
        return None
    return text[words[0].start() : first.end()], text[last.start() : words[-1].end()]


def _topic_of(passage: Passage, others: Sequence[Passage]) -> Item | None:
    """A question about the continuation of an article; None where its language has too few other topics."""
    identity = _hashed("topic", passage.text)
    start = int(identity, 16) // CHOICES % len(others)
    wrong: dict[str, str] = {}  # topic -> continuation
    for other in [*others[start:], *others[:start]]:
        if len(wrong) == CHOICES - 1:
            break
        if other.topic != passage.topic and other.topic not in wrong:
            wrong[other.topic] = _halves(other.text)[1]  # type: ignore[index]  # all that are here have halves
    if len(wrong) < CHOICES - 1:
        return None
    context, right = _halves(passage.text)  # type: ignore[misc]
    # The topic is not told under that name: a router by topic would be handed what the question is about.
    return _question(identity, context, right, list(wrong.values()), language=passage.language, about=passage.topic)
