"""`moe-study export`: a trained run as a folder that Hugging Face transformers opens."""

import argparse
from pathlib import Path
from typing import Any

from moe_study.commands.arguments import add_run, add_runs_dir

DESCRIPTION = """\
Write a finished run's model for other libraries: safetensors, config.json, the tokenizer (tokenizer.json and
tokenizer_config.json), a card (README.md) with its result, origin and causality, and all of that for programs in
moe_study.json. A plain dense model is a GPT2LMHeadModel; every other opens where moe_study is installed:

  import moe_study.hf
  from transformers import AutoModelForCausalLM, AutoTokenizer
  model = AutoModelForCausalLM.from_pretrained(FOLDER)

  moe-study export runs/KEY                     to runs/KEY/export
  moe-study export runs/KEY --out my_model

Needs transformers: pip install 'moe-study[hf]'
"""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `export` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help="A trained run as a folder that Hugging Face transformers opens.",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_run(parser, "a finished run's")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to (RUN/export)")
    add_runs_dir(parser)
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Write the folder and say what it is."""
    from moe_study.posthoc.export import export_run
    from moe_study.posthoc.export_card import caveats
    from moe_study.runs.listing import find_run

    exported = export_run(find_run(options.runs_dir, options.run), options.out)
    print(f"{exported.facts.name}, run {exported.facts.key}: {exported.architecture} in {exported.folder}")
    print(f"opened again: logits differ by at most {exported.difference:.1g} from the run's")
    for mark, note in caveats(exported.facts.causality):
        print(f"{mark} {note}")
    if why := exported.facts.why_it_cannot_go_on:
        print(f"it generates nothing, because {why}")
