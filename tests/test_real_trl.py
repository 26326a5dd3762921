"""The real chat model trained by TRL's KTOTrainer and by the course's own loop: the same rows, the same losses."""

import tempfile

import datasets
import pytest
from transformers import PrinterCallback
from trl import KTOConfig, KTOTrainer
from trl_setup import quiet

from kto_lab.chat import tokenize_rows
from kto_lab.real import chat_model, protocol, results
from kto_lab.real.questions import capitals, likes_right_and_brief
from kto_lab.real.sampling import Reply
from kto_utils.losses import balanced_weights
from kto_utils.model import reference_of
from kto_utils.train import Batches, train_kto

STEPS, SIZE, SEED = 3, 4, 0
TOLERANCE = 1e-4  # of a loss in float32


def judged_rows():
    """Replies of SmolLM2 that ended, from the results file, as chat rows with the judge's thumb."""
    _, held_out = capitals()
    rows = []
    for asked, (text, ended) in zip(held_out, results.load()["before", 4]["replies"], strict=True):
        if ended:
            ask, answer = {"role": "user", "content": asked.question}, {"role": "assistant", "content": text}
            label = likes_right_and_brief(asked, Reply((), (), text, ended))
            rows.append({"prompt": [ask], "completion": [answer], "label": label})
    return rows


def by_trl(rows, weights):
    """TRL's log of the run, one dict a step."""
    model, tokenizer = chat_model.load_chat_model()
    batches = Batches(len(rows), SIZE, SEED)
    drawn = [rows[place] for _ in range(STEPS) for place in batches.draw()]  # TRL reads them one after the other
    with tempfile.TemporaryDirectory() as folder, quiet():
        settings = KTOConfig(
            output_dir=folder, use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True,
            logging_steps=1, gradient_checkpointing=False, train_sampling_strategy="sequential", max_steps=STEPS,
            per_device_train_batch_size=SIZE, optim="adamw_torch", learning_rate=protocol.LEARNING_RATE,
            lr_scheduler_type="constant", beta=protocol.BETA, max_length=None, **weights,
        )  # fmt: skip
        trainer = KTOTrainer(model=model, ref_model=reference_of(model), args=settings, processing_class=tokenizer,
                             train_dataset=datasets.Dataset.from_list(drawn))  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


def by_the_course(rows, weights):
    model, tokenizer = chat_model.load_chat_model()
    _, history = train_kto(
        model, reference_of(model), tokenize_rows(rows, tokenizer), tokenizer, steps=STEPS, batch_size=SIZE, seed=SEED,
        learning_rate=protocol.LEARNING_RATE, beta=protocol.BETA, **weights,
    )  # fmt: skip
    return history


@pytest.mark.skipif(not chat_model.is_here(), reason="SmolLM2 is not here: `course.py real --fetch`")
def test_the_course_s_loop_and_trl_find_the_same_losses_on_the_real_model():
    rows = judged_rows()
    up = sum(row["label"] for row in rows)
    assert 0 < up < len(rows)
    assert len(rows) >= 2 * SIZE
    weights = dict(zip(("desirable_weight", "undesirable_weight"), balanced_weights(up, len(rows) - up), strict=True))
    theirs, ours = by_trl(rows, weights), by_the_course(rows, weights)
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], abs=TOLERANCE)
    assert [row["kl"] for row in ours] == pytest.approx([row["kl"] for row in theirs], abs=1e-2)
    assert abs(ours[-1]["loss"] - ours[0]["loss"]) > 10 * TOLERANCE  # the steps moved more than what is forgiven
