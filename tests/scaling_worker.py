"""What each process of `test_scaling.py` runs: `accelerate launch ... scaling_worker.py FOLDER JOBS`.

JOBS is a JSON list; the results of each process go to FOLDER/rank_N.json and its weights to FOLDER/rank_N.pt.
"""

import datetime
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from kto_lab import checkpoints, distributed
from kto_lab.scored_reference import scored_beforehand
from kto_utils import train, world
from kto_utils.model import reference_of, tiny_llama, to_float64
from kto_utils.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer()


def rows() -> list[dict]:
    """30 rows of the small world, eight of them thumbs down, so that many a share of a batch holds one kind only."""
    rng, made = random.Random(3), []
    for number, question in enumerate((world.trained_questions() * 2)[:30]):
        text = world.draw_reply(question, rng).text
        made.append({"prompt": question.prompt, "completion": text, "label": number % 4 != 1})
    return made


def pairs() -> list[dict]:
    rng = random.Random(4)
    return [
        {"prompt": q.prompt, "chosen": world.draw_reply(q, rng, polite=1.0).text,
         "rejected": world.draw_reply(q, rng, polite=0.0).text}
        for q in world.trained_questions()
    ]  # fmt: skip


def models(seed: int = 1) -> tuple[torch.nn.Module, torch.nn.Module]:
    """(policy, reference), float64. The policy has moved, so that some batches have kl above 0 and some have not."""
    policy = to_float64(tiny_llama(len(TOKENIZER), 16, 32, 2, 2, seed=0))
    reference = reference_of(policy)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.1)
    return policy, reference


def run(method: str, options: dict, seed_of_weights: int = 1) -> tuple[torch.nn.Module, list[dict]]:
    policy, reference = models(seed_of_weights)
    options = {"steps": 10, "batch_size": 7, "learning_rate": 3e-3, "seed": 5} | options
    callbacks = [checkpoints.Checkpoint(options.pop("checkpoint"), every=3)] if "checkpoint" in options else []
    beforehand = {"reference_logps": scored_beforehand} if options.pop("scored_beforehand", False) else {}
    options["parts"] = train.Parts(callbacks, distributed.Processes.of_launcher(), **beforehand)
    if method == "sft":
        return train.train_sft(policy, rows(), TOKENIZER, **options)
    loop, given = (train.train_kto, rows()) if method == "kto" else (train.train_dpo, pairs())
    return loop(policy, reference, given, TOKENIZER, **options)


def interrupt(how: str, which: int, at_step: int) -> None:
    """From now on process `which` is killed, or sleeps, in the middle of this step: between backward and exchange."""
    exchange, steps = distributed.Processes.sum_gradients, []

    def stop_or_exchange(here, parameters):
        steps.append(1)
        if here.rank == which and len(steps) == at_step:
            os.kill(os.getpid(), signal.SIGKILL) if how == "killed" else time.sleep(600)
        exchange(here, parameters)

    distributed.Processes.sum_gradients = stop_or_exchange


def main(folder: Path, jobs: list[dict]) -> None:
    rank, results, weights = int(os.environ["RANK"]), [], []
    saves, save = [], checkpoints.save_checkpoint
    checkpoints.save_checkpoint = lambda path, state: (saves.append(state["step"]), save(path, state))
    for job in jobs:
        if "interrupt" in job:
            interrupt(**job["interrupt"])
        if "patience" in job:
            distributed.PATIENCE = datetime.timedelta(seconds=job["patience"])
        saves.clear()
        result = {}
        try:
            own_weights = rank if job.get("differ") == "weights" else 1
            options = job["options"] | ({"seed": rank} if job.get("differ") == "seed" else {})
            model, result["history"] = run(job["method"], options, own_weights)
            weights.append([parameter.detach() for parameter in model.parameters()])
        except ValueError as error:
            result["error"] = str(error)
        results.append(result | {"saves": list(saves)})
    (folder / f"rank_{rank}.json").write_text(json.dumps(results), encoding="utf-8")
    torch.save(weights, folder / f"rank_{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
