"""Trains the small world with the course's own loop: the same script on one process and on several.

    python kto_lab/scripts/train_small_world.py
    python -m torch.distributed.run --standalone --nproc_per_node 2 kto_lab/scripts/train_small_world.py
    accelerate launch --config_file kto_lab/scripts/two_processes_cpu.yaml kto_lab/scripts/train_small_world.py

Nothing in here knows how many there are but `Processes`. Killed and started again, it continues from its checkpoint.
"""

import argparse
from pathlib import Path

from kto_lab.checkpoints import Checkpoint
from kto_lab.distributed import Processes
from kto_lab.plain import to_json, write_whole
from kto_utils.evaluate import collect_feedback
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Parts, train_kto
from kto_utils.world import trained_questions


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small world with the course's own loop.")
    parser.add_argument("--steps", type=int, default=75)
    parser.add_argument("--batch-size", type=int, default=15, help="rows of all processes together")
    parser.add_argument("--checkpoint", help="file to write every ten steps and to continue from")
    parser.add_argument("--history", help="JSON file for the log")
    options = parser.parse_args()

    if options.history:
        Path(options.history).parent.mkdir(parents=True, exist_ok=True)  # now: an error here costs no training
    policy, tokenizer = load_reference_model(), load_tokenizer()
    rows = collect_feedback(policy, trained_questions(), 50, seed=0)
    up = sum(row["label"] for row in rows)
    desirable_weight, undesirable_weight = balanced_weights(up, len(rows) - up)
    kept = [Checkpoint(options.checkpoint, every=10)] if options.checkpoint else []
    policy, history = train_kto(
        policy, reference_of(policy), rows, tokenizer, steps=options.steps, batch_size=options.batch_size,
        learning_rate=5e-4, desirable_weight=desirable_weight, undesirable_weight=undesirable_weight,
        log_every=5, parts=Parts(callbacks=kept, processes=Processes.of_launcher()),
    )  # fmt: skip
    if options.history:
        write_whole(options.history, [to_json(history)])  # a batch of one kind has no reward of the other: null


if __name__ == "__main__":
    main()
