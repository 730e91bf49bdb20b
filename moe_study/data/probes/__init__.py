"""Probes: labelled texts that no run trains on, to see what a trained run's experts attend to.

    probe = prepare_probe("wiki_topics", load_run_tokenizer(folder), Path("data"))

A new probe is one file here and one line in PROBES.
"""

from moe_study.data.probes.base import Probe, ProbeDocument, ProbeRecipe, ProbeSource, Word
from moe_study.data.probes.prepared import DEFAULT_PROBE, DEFAULT_TOKENS, PROBES, prepare_probe

__all__ = [
    "DEFAULT_PROBE",
    "DEFAULT_TOKENS",
    "PROBES",
    "Probe",
    "ProbeDocument",
    "ProbeRecipe",
    "ProbeSource",
    "Word",
    "prepare_probe",
]
