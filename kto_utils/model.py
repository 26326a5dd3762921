"""The tiny Llama, the frozen reference copy, and float64 without surprises. Derived in lesson 02."""

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from kto_utils.tokenizer import BOS_ID, EOS_ID, PAD_ID

REFERENCE_FOLDER = Path(__file__).parent / "assets" / "reference"
SMALL_REFERENCE_FOLDER = Path(__file__).parent / "assets" / "reference_small"


def tiny_llama(
    vocab_size: int,
    hidden_size: int = 256,
    intermediate_size: int = 512,
    num_layers: int = 2,
    num_heads: int = 4,
    max_length: int = 512,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> LlamaForCausalLM:
    """An untrained Llama with the library's own, unmodified code.

    Args:
        vocab_size: number of tokens V, at least 3 (padding, begin and end take ids 0, 1 and 2).
        hidden_size, intermediate_size, num_layers, num_heads: the shape; heads must divide hidden_size.
        max_length: longest sequence, in tokens.
        seed: of the weights. They are drawn in float64 and then rounded to dtype, so every machine gets the same ones.
        dtype: of the parameters.

    Returns:
        A LlamaForCausalLM in eval mode; logits have shape (B, T, V).

    Raises:
        ValueError: a size that is too small, or heads that do not divide hidden_size.

    Lesson 02 counts its parameters and rebuilds its forward pass.
    """
    sizes = {"vocab_size": vocab_size, "hidden_size": hidden_size, "intermediate_size": intermediate_size}
    sizes |= {"num_layers": num_layers, "num_heads": num_heads, "max_length": max_length}
    for name, size in sizes.items():
        least = 3 if name == "vocab_size" else 1  # pad, bos and eos
        if size < least:
            raise ValueError(f"{name} is {size}; it must be at least {least}")
    if hidden_size % num_heads or (hidden_size // num_heads) % 2:
        why = "must be a whole, even head size (rotary positions turn pairs of numbers)"
        raise ValueError(f"hidden_size {hidden_size} / num_heads {num_heads} {why}")
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        max_position_embeddings=max_length,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        attn_implementation="sdpa",
    )
    model = _build(config).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # matrices; the norms' vectors stay at 1
                draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(draw * config.initializer_range)
        model.model.embed_tokens.weight[PAD_ID] = 0.0
    return model.eval()


def _build(config: LlamaConfig) -> LlamaForCausalLM:
    """The library's model. Its own draw of weights is overwritten later; the global random state is kept."""
    with torch.random.fork_rng(devices=[]):
        return LlamaForCausalLM(config)


class Float64RotaryEmbedding(torch.nn.Module):
    """The rotary table computed in float64; the library's own is float32 even in a float64 model."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        head_size = config.head_dim or config.hidden_size // config.num_attention_heads
        steps = torch.arange(0, head_size, 2, dtype=torch.float64) / head_size
        theta = config.rope_parameters["rope_theta"]
        self.register_buffer("inverse_frequency", theta**-steps, persistent=False)

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].double() * self.inverse_frequency
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def to_float64(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Makes a Llama compute in float64 throughout, in place, so that printed digits agree on every machine.

    `model.double()` is not enough: the library's norms and rotary table fall back to float32. They are
    replaced by `torch.nn.RMSNorm` and `Float64RotaryEmbedding`; parameter names and values stay. Lesson 02
    shows the difference (about 1e-7).

    Raises:
        ValueError: the model uses a scaled rotary table, which the replacement does not reproduce.
    """
    rope_type = model.config.rope_parameters.get("rope_type", "default")
    if rope_type != "default":
        raise ValueError(f"rope_type is {rope_type!r}; only the default rotary table can be made float64")
    model = model.double()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LlamaRMSNorm):
                norm = torch.nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(parent, name, norm.train(child.training))
    rotary = Float64RotaryEmbedding(model.config).to(model.device)
    model.model.rotary_emb = rotary.train(model.training)
    return model


def reference_of(policy: torch.nn.Module) -> torch.nn.Module:
    """A frozen deep copy of the policy: no gradients, eval mode, no shared memory. Make it before training.

    Lesson 02 shows what goes wrong when the reference is a second random model instead.
    """
    return copy.deepcopy(policy).requires_grad_(False).eval()


def load_model(folder: Path | str) -> LlamaForCausalLM:
    """Loads config.json and model.safetensors of a Llama from a local folder, in float64, in eval mode.

    Raises:
        FileNotFoundError: the folder lacks one of the two files.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; a model folder needs config.json and model.safetensors")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = LlamaConfig(**settings, attn_implementation="sdpa")
    model = to_float64(_build(config))  # before loading: a float64 file would be rounded by a float32 model
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def load_reference_model(small: bool = False) -> LlamaForCausalLM:
    """The model that ships with the course: fine-tuned on polite and rude, right and wrong replies alike.

    Args:
        small: the one with hidden size 64, on which the experiments make their many runs; else 128.

    Returns:
        A LlamaForCausalLM (2 layers) in float64 with the measures of `to_float64`, eval mode, parameters
        trainable: use `reference_of` for the frozen copy. Every call returns a new model.

    `python course.py assets` makes the files again; lesson 07 explains the recipe.
    """
    return load_model(SMALL_REFERENCE_FOLDER if small else REFERENCE_FOLDER)
