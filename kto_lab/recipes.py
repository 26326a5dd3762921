"""How the shipped assets were made: the tokenizer and the reference models. `python course.py assets` runs it."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from kto_utils import world
from kto_utils.model import REFERENCE_FOLDER, SMALL_REFERENCE_FOLDER, tiny_llama, to_float64
from kto_utils.tokenizer import TOKENIZER_FILE, load_tokenizer, to_fast_tokenizer, train_bpe
from kto_utils.train import train_sft

VOCAB_SIZE = 512
REFERENCE_SHAPE = {"hidden_size": 128, "intermediate_size": 256}
SMALL_SHAPE = {"hidden_size": 64, "intermediate_size": 128}  # for the many runs of the experiments
SFT_SETTINGS = {"steps": 400, "batch_size": 64, "learning_rate": 3e-3, "seed": 1}
SFT_ROWS_PER_QUESTION = 200

# What LlamaConfig needs to build the same model again; its other fields keep the library's defaults.
CONFIG_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
    "pad_token_id", "bos_token_id", "eos_token_id",
)  # fmt: skip


def make_tokenizer(file: Path = TOKENIZER_FILE) -> None:
    """Trains the byte-pair encoding on the world's sentences and writes tokenizer.json."""
    fast = to_fast_tokenizer(train_bpe(world.corpus(), VOCAB_SIZE))
    fast.backend_tokenizer.save(str(file))


def make_reference(shape: Mapping[str, int] = REFERENCE_SHAPE, steps: int = SFT_SETTINGS["steps"], log_every: int = 0):
    """Fine-tunes a tiny Llama on the seeded mixture (polite half of the time, right half of the time).

    Args:
        shape: of the model, `REFERENCE_SHAPE` or `SMALL_SHAPE`.
        steps: of SFT; 0 gives the untrained model. Lesson 08 compares references that have seen less.

    Returns:
        The model in float64, before rounding; the shipped file is this one rounded to float32.
    """
    model = to_float64(tiny_llama(VOCAB_SIZE, **shape, seed=0, dtype=torch.float64))
    if steps:
        rows = world.sft_rows(SFT_ROWS_PER_QUESTION, seed=0)
        train_sft(model, rows, load_tokenizer(), log_every=log_every, **SFT_SETTINGS | {"steps": steps})
    return model


def save_reference(model, folder: Path) -> None:
    """Writes config.json and model.safetensors (float32)."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(model.config, name) for name in CONFIG_FIELDS}
    settings["architectures"] = ["LlamaForCausalLM"]
    settings["model_type"] = "llama"
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    weights = {name: tensor.detach().float().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    make_tokenizer()
    save_reference(make_reference(REFERENCE_SHAPE, log_every=50), REFERENCE_FOLDER)
    save_reference(make_reference(SMALL_SHAPE, log_every=50), SMALL_REFERENCE_FOLDER)
