"""Models of this project as classes of Hugging Face transformers.

    import moe_study.hf                                             # registers them
    from transformers import AutoModelForCausalLM, AutoTokenizer
    model = AutoModelForCausalLM.from_pretrained(FOLDER)            # what moe-study export has written
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)

Needs the extra `hf` (MissingLibrary without). Nothing else in the package imports transformers.
"""

from moe_study.errors import MissingLibrary, reason_of

try:
    from transformers import AutoConfig, AutoModelForCausalLM
except ImportError as error:
    raise MissingLibrary(f"transformers is missing ({reason_of(error)}); type: pip install 'moe-study[hf]'") from error

from moe_study.hf.config import MoeStudyConfig
from moe_study.hf.gpt2 import as_gpt2, fits_gpt2
from moe_study.hf.model import MoeStudyForCausalLM, as_moe_study

__all__ = ["MoeStudyConfig", "MoeStudyForCausalLM", "as_gpt2", "as_moe_study", "fits_gpt2"]

AutoConfig.register(MoeStudyConfig.model_type, MoeStudyConfig, exist_ok=True)
AutoModelForCausalLM.register(MoeStudyConfig, MoeStudyForCausalLM, exist_ok=True)
