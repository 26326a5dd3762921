"""The small world as the files that other engines read: a model folder and rows as JSONL. Taught in lesson 12.

    python -m kto_lab.export runs/small_world
"""

import argparse
from pathlib import Path

import torch
from transformers.utils import logging as library_logging

from kto_lab.plain import write_jsonl
from kto_utils.data import pair_up
from kto_utils.evaluate import collect_feedback
from kto_utils.model import load_reference_model
from kto_utils.tokenizer import load_tokenizer
from kto_utils.world import trained_questions


def export_model(folder: Path | str) -> None:
    """Writes the shipped model in float32 and its tokenizer, so that `from_pretrained(folder)` loads both.

    `model.load_model(folder)` reads it too, and what an engine saved after training.
    """
    library_logging.disable_progress_bar()  # one file, and the bar would land in logs and notebooks
    load_reference_model().to(torch.float32).save_pretrained(folder)
    library_logging.enable_progress_bar()
    load_tokenizer().save_pretrained(folder)


def export_world(folder: Path | str, n: int = 50, seed: int = 0) -> dict[str, Path]:
    """Writes model, tokenizer and feedback of the small world.

    Args:
        folder: is made if needed; files of the same names are replaced.
        n: replies judged for each of the 24 trained questions.
        seed: of the replies and their order.

    Returns:
        dict of paths: `model` (a folder), `thumbs` (JSONL: prompt, completion, label), `pairs` (JSONL: prompt, chosen,
        rejected; at most two thumbs make one).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"model": folder / "model", "thumbs": folder / "thumbs.jsonl", "pairs": folder / "pairs.jsonl"}
    export_model(paths["model"])
    rows = collect_feedback(load_reference_model(), trained_questions(), n, seed)
    write_jsonl(paths["thumbs"], rows)
    write_jsonl(paths["pairs"], pair_up(rows, seed)[0])
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the small world as a model folder and JSONL files.")
    parser.add_argument("folder")
    for name, path in export_world(parser.parse_args().folder).items():
        print(f"{name:8s} {path}")
