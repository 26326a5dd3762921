"""What is measured on: rows, tokenizers and models, the same for all contenders."""

import random
from dataclasses import dataclass

CONTENDERS = {
    "ours": "train_kto",
    "plain": "plain step of lesson 07",
    "trl": "TRL 1.16",
    "trl_beforehand": "TRL 1.16, reference beforehand",
}
WARM_UP, TIMED = 4, 20
LEARNING_RATE, BETA, MAX_GRAD_NORM = 1e-4, 0.05, 1.0  # beta: float32 holds the long sums to 2e-4 nats only


@dataclass(frozen=True)
class Workload:
    """Rows, batch size and model. Lengths are in tokens, the prompt's with BOS, the completion's with EOS.

    `prompt` and `completion` are (least, most); None takes the small world's own questions and replies.
    """

    name: str
    batch_size: int
    prompt: tuple[int, int] | None = None
    completion: tuple[int, int] | None = None


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("small world", 16),
        Workload("classic", 8, (16, 48), (8, 24)),
        Workload("long", 4, (256, 256), (256, 256)),
    )
}
VOCABULARY = 32_000


def word_tokenizer():
    """A tokenizer that knows the words w3, w4, ... and nothing else, so that a text has as many tokens as words."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from kto_utils.tokenizer import BOS, BOS_ID, EOS, PAD, SPECIAL_TOKENS

    words = [*SPECIAL_TOKENS, *(f"w{i}" for i in range(len(SPECIAL_TOKENS), VOCABULARY))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=PAD))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL_TOKENS])
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, bos_token=BOS, eos_token=EOS)


def rows_of(workload: Workload, n_rows: int) -> list[dict]:
    """Feedback rows with thumbs of both kinds; the same at each call."""
    rng = random.Random(0)
    if workload.prompt is None:
        from kto_utils import world

        questions = [rng.choice(world.trained_questions()) for _ in range(n_rows)]
        texts = [world.draw_reply(question, rng).text for question in questions]
        return [
            {"prompt": question.prompt, "completion": text, "label": world.judge(question, text)}
            for question, text in zip(questions, texts, strict=True)
        ]

    def text(n_tokens: int) -> str:
        return "".join(f" w{rng.randrange(3, VOCABULARY)}" for _ in range(n_tokens - 1))  # BOS or EOS is the last one

    return [
        {
            "prompt": text(rng.randint(*workload.prompt)),
            "completion": text(rng.randint(*workload.completion)),
            "label": rng.random() < 0.5,
        }
        for _ in range(n_rows)
    ]


def tokenizer_of(workload: Workload):
    from kto_utils.tokenizer import load_tokenizer

    return load_tokenizer() if workload.prompt is None else word_tokenizer()


def model_of(workload: Workload, dtype: str, device: str):
    """The shipped model for the small world, else the "classic" tiny Llama: hidden 256, 2 layers, 4 heads."""
    import torch

    from kto_utils.model import load_reference_model, tiny_llama

    if workload.prompt is not None:
        return tiny_llama(VOCABULARY).to(device, getattr(torch, dtype))
    shipped = load_reference_model()
    sizes = shipped.config
    model = tiny_llama(
        sizes.vocab_size, sizes.hidden_size, sizes.intermediate_size, sizes.num_hidden_layers,
        sizes.num_attention_heads, sizes.max_position_embeddings,
    )  # fmt: skip
    model.load_state_dict(shipped.state_dict())
    return model.to(device, getattr(torch, dtype))


def order_of(n_rows: int, batch_size: int) -> list[int]:
    """The rows in the order in which `train_kto` deals them in its first pass."""
    from kto_utils.train import Batches

    batches = Batches(n_rows, batch_size, seed=0)
    return [i for _ in range(n_rows // batch_size) for i in batches.draw()]
