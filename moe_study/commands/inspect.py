"""`moe-study inspect`: where a trained run sends the tokens of a text, and what an expert or a topic is about."""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_study.analysis.format import aligned, count
from moe_study.commands.arguments import add_probe_places, add_run, add_runs_dir
from moe_study.errors import StudyError

if TYPE_CHECKING:
    from rich.text import Text

    from moe_study.data.probes import Probe
    from moe_study.posthoc.inspect import LayerOfText, Pick, ReadText
    from moe_study.posthoc.profile import ExpertProfile, Preference
    from moe_study.runs.traces import Trace

DESCRIPTION = """\
Look inside one trained run. A text shows which expert takes which token: all layers as rows, or one layer's experts as
colours of the text. An expert or a topic is looked up in a trace of a labelled probe, which is made if it is not there.

  moe-study inspect runs/KEY --text "The house of the rising sun"
  moe-study inspect runs/KEY letter.txt --layer 1          or: cat letter.txt | moe-study inspect runs/KEY
  moe-study inspect runs/KEY --expert 1.3                  domains, tokens and contexts of layer 1, expert 3
  moe-study inspect runs/KEY --topic history               experts of a topic (or of a language)
"""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `inspect` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "inspect",
        help="Which expert of a trained run takes which token, topic or language.",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_run(parser, "a trained run's")
    parser.add_argument("file", metavar="FILE", nargs="?", help="a text file, right behind RUN; - for standard input")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--text", help="the text itself")
    what.add_argument("--expert", metavar="L.E", help="layer and expert, from 0, such as 1.3")
    what.add_argument("--topic", metavar="NAME", help="a topic, language or other label of the probe")
    parser.add_argument("--layer", type=int, metavar="L", help="of a text: this layer alone, as coloured text")
    parser.add_argument("--label", metavar="NAME", help="of a text: what a run that is routed by label is told")
    parser.add_argument("--probe", metavar="NAME", help="labelled texts for --expert and --topic (wiki_topics)")
    parser.add_argument("--tokens", type=int, default=None, metavar="N", help="how much of the probe (200000)")
    add_probe_places(parser)
    parser.add_argument("--json", action="store_true", help="everything as JSON, for other programs")
    add_runs_dir(parser)
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Print what was asked for."""
    from moe_study.runs.listing import find_run

    check(options)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    folder = find_run(options.runs_dir, options.run)
    if options.expert is None and options.topic is None:
        from moe_study.posthoc.inspect import inspect_text

        read = inspect_text(folder, text_of(options), options.label)
        if options.json:
            print_json(text_as_json(read, options.layer))
        else:
            print_text(read, options.layer)
        return
    from moe_study.data import load_run_tokenizer
    from moe_study.data.probes import DEFAULT_PROBE, DEFAULT_TOKENS
    from moe_study.posthoc import profile
    from moe_study.posthoc.trace import probe_of, trace_run

    wanted = None if options.expert is None else parse_expert(options.expert)
    profile.check_experts(folder, wanted)
    probe = probe_of(
        folder,
        options.probe or DEFAULT_PROBE,
        data_root=options.data_root,
        path=options.path,
        tokens=DEFAULT_TOKENS if options.tokens is None else options.tokens,
    )
    trace = trace_run(folder, probe)
    if wanted is None:
        found = profile.domain_profile(trace, options.topic)
        if options.json:
            print_json({layer: [asdict(row) for row in rows] for layer, rows in found.items()})
        else:
            print_lines([*_domain_lines(trace, options.topic, found), "", *_caveats(trace, probe)])
        return
    expert = profile.expert_profile(trace, load_run_tokenizer(folder), *wanted)
    if options.json:
        contexts = [[part.decode("utf-8", "replace") for part in context] for context in expert.contexts]
        print_json(asdict(expert) | {"contexts": contexts})
    else:
        print_lines([*_expert_lines(trace, expert), "", *_caveats(trace, probe)])


OF_A_TEXT = ("file", "layer", "label")
OF_A_PROBE = ("probe", "tokens", "path")


def check(options: argparse.Namespace) -> None:
    """StudyError for options that would have no part in the answer."""
    asked = next((f"--{name}" for name in ("expert", "topic") if getattr(options, name) is not None), None)
    for name in OF_A_PROBE if asked is None else OF_A_TEXT:
        if getattr(options, name) is None:
            continue
        given = "the file" if name == "file" else "--" + name.replace("_", "-")
        if asked is None:
            raise StudyError(f"{given} is about the probe that --expert and --topic look at, not a text; leave it out")
        raise StudyError(f"{given} is about a text, and {asked} looks at a probe; leave one of them out")
    if options.path is not None and options.probe != "local_files":
        raise StudyError("--path is the folder of --probe local_files; no other probe has one")


def text_of(options: argparse.Namespace) -> str:
    """--text, the file, or standard input; StudyError where there is none, or where it is not UTF-8."""
    if options.text is not None:
        if options.file is not None:
            raise StudyError("give the text either with --text or as a file, not both")
        return str(options.text)
    try:
        if options.file not in (None, "-"):
            return Path(options.file).read_bytes().decode()
        if sys.stdin is None or (options.file is None and sys.stdin.isatty()):
            raise StudyError('say what to look at: --text "...", a file, standard input, --expert L.E or --topic NAME')
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise StudyError(f"{options.file or 'standard input'} is not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise StudyError(f"{options.file} cannot be read: {error.strerror}") from None


def parse_expert(text: str) -> tuple[int, int]:
    """`1.3` as layer 1, expert 3; StudyError otherwise."""
    match = re.fullmatch(r"(\d+)\.(\d+)", text)
    if match is None:
        raise StudyError(f"--expert {text} must be a layer and an expert with a point between them, such as 1.3")
    return int(match[1]), int(match[2])


# A text ---------------------------------------------------------------------------------------------------------


def text_as_json(read: "ReadText", only: int | None) -> dict[str, Any]:
    """Everything of a text; the characters of a token whose bytes are not whole characters are replaced."""
    layers = [asdict(layer) for layer in _layers(read, only)]
    texts = [piece.decode("utf-8", "replace") for piece in read.pieces]
    hexadecimal = [piece.hex() for piece in read.pieces]
    return asdict(read) | {"layers": layers, "pieces": texts, "bytes": hexadecimal}


def _layers(read: "ReadText", only: int | None) -> "list[LayerOfText]":
    """All, or the one asked for; StudyError where it has no experts."""
    layers = read.layers if only is None else [layer for layer in read.layers if layer.layer == only]
    if only is not None and not layers:
        known = ", ".join(str(layer.layer) for layer in read.layers) or "none, the run is dense"
        raise StudyError(f"layer {only} has no experts; layers that have: {known}")
    return layers


def print_text(read: "ReadText", only: int | None) -> None:
    """All layers as rows, or one as running text."""
    from rich.console import Console

    from moe_study.posthoc import show

    console = Console(highlight=False, markup=False, emoji=False)
    colours, shown = show.has_colours(console), show.visible(read.pieces)
    layers, in_file = _layers(read, only), not console.is_terminal
    for line in _text_head(read):
        console.print(line, soft_wrap=in_file)
    if only is None:
        marks = [(f"layer {layer.layer}", [(mark(picks), _first(picks)) for picks in layer.picks]) for layer in layers]
        for row in show.rows(shown, marks, console.width, colours):
            console.print(row, crop=False)
    else:
        firsts = [_first(picks) for picks in layers[0].picks]
        console.print(show.running_text(shown, firsts, colours), soft_wrap=in_file)
        console.print()
    for layer in layers:
        console.print(_load(layer, colours), soft_wrap=in_file)


def _text_head(read: "ReadText") -> Iterator[str]:
    losses = [loss for loss in read.loss if loss is not None]
    loss = f", loss {sum(losses) / len(losses):.2f} per token" if losses else ""
    parts = f", read in {read.windows} windows of its context" if read.windows > 1 else ""
    tokens = "1 token" if len(read.ids) == 1 else f"{len(read.ids):,} tokens"
    yield f"{read.run}: {tokens}{loss}{parts}"
    if not read.layers:
        yield "a dense run: it has no experts"


def mark(picks: "Sequence[Pick]") -> str:
    """The two experts of the largest weight, in brackets where a capacity dropped them; - for none."""
    cells = [f"{pick.expert}" if pick.kept else f"({pick.expert})" for pick in picks[:2]]
    return ",".join(cells) + ("+" if len(picks) > 2 else "") if cells else "-"


def _first(picks: "Sequence[Pick]") -> int | None:
    return next((pick.expert for pick in picks if pick.kept), None)


def _load(layer: "LayerOfText", colours: bool) -> "Text":
    """How many tokens each expert takes as their first."""
    from rich.text import Text

    from moe_study.posthoc import show

    firsts = [_first(picks) for picks in layer.picks]
    line = Text(f"layer {layer.layer}, first experts:")
    for expert in sorted({expert for expert in firsts if expert is not None}, key=lambda e: (-firsts.count(e), e)):
        line.append(" ")
        line.append(f" {expert} " if colours else f"{expert}:", show.colour_of(expert) if colours else None)
        line.append(f"{firsts.count(expert) / len(firsts):.0%}")
    if None in firsts:
        line.append(f", none {firsts.count(None) / len(firsts):.0%}")
    return line


# A probe --------------------------------------------------------------------------------------------------------


def _trace_head(trace: "Trace") -> str:
    identity = trace.manifest["identity"]
    return f"{identity['run']} on {identity['probe']}, {len(trace.token_T):,} tokens"


def _expert_lines(trace: "Trace", profile: "ExpertProfile") -> Iterator[str]:
    from moe_study.posthoc import show

    expert = f"expert {profile.layer}.{profile.expert} of {profile.experts}"
    yield f"{_trace_head(trace)}: {expert} takes {profile.share:.1%}"
    yield ""
    yield from _table("domain", profile.domains)
    if profile.favourites:
        yield ""
        yield from _table("token", profile.favourites)
    if profile.contexts:
        yield ""
    for before, token, after in profile.contexts:
        shown = show.visible(show.whole(before, token, after))
        parts = [text if part else "" for text, part in zip(shown, (before, token, after), strict=True)]
        yield f"  {parts[0]}⟦{parts[1]}⟧{parts[2]}"


def _domain_lines(trace: "Trace", name: str, profile: "dict[int, list[Preference]]") -> Iterator[str]:
    yield f"{_trace_head(trace)}: experts of {name}"
    for layer, rows in profile.items():
        yield ""
        yield from _table(f"expert of layer {layer}", rows)


def _caveats(trace: "Trace", probe: "Probe") -> Iterator[str]:
    """What a reader should know of the numbers."""
    from moe_study.data.probes.overlap import Overlap

    yield "lift is over the expert's share of all tokens; no test stands behind it"
    if trace.overlap is None:
        yield "the training text is not here, so what the probe shares with it was not counted"
    else:
        yield Overlap(**trace.overlap).sentence
    yield from probe.notes


def _table(what: str, preferences: "Sequence[Preference]") -> Iterator[str]:
    """Names last: their letters may be of any width."""
    from moe_study.posthoc.show import in_cell, safe

    rows = [("tokens", "share", "lift", what)]
    for row in preferences:
        name = in_cell(safe(row.name)) if row.label == "token" else safe(row.name)
        named = f"{row.label} {name}" if row.label not in ("", "token") else name
        rows.append((count(row.count), f"{row.share:.1%}", f"{row.lift:.2f}", named))
    yield from aligned(rows, right=(0, 1, 2))


def print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        print(line)


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=True, allow_nan=False))
