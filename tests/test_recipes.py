"""The shipped assets are what their recipes make."""

import pytest
import torch
from safetensors.torch import load_file

from kto_lab import recipes
from kto_utils.evaluate import thumbs_up_rate
from kto_utils.model import REFERENCE_FOLDER, SMALL_REFERENCE_FOLDER, load_reference_model

EACH = pytest.mark.parametrize(
    ("shape", "folder"),
    [(recipes.REFERENCE_SHAPE, REFERENCE_FOLDER), (recipes.SMALL_SHAPE, SMALL_REFERENCE_FOLDER)],
    ids=["course", "small"],
)


@EACH
def test_the_recipe_gives_the_shipped_weights(shape, folder):
    made = recipes.make_reference(shape).state_dict()
    shipped = load_file(folder / "model.safetensors")
    assert made.keys() == shipped.keys()
    for name, tensor in shipped.items():
        assert tensor.dtype == torch.float32
        # The file is the float64 result rounded to float32, so half a unit in the last place of each weight.
        assert torch.allclose(made[name], tensor.double(), rtol=1e-6, atol=1e-6), name


@EACH
def test_saving_writes_what_loading_reads(shape, folder, tmp_path):
    model = load_reference_model(small=folder == SMALL_REFERENCE_FOLDER)
    assert model.config.hidden_size == shape["hidden_size"]
    recipes.save_reference(model, tmp_path)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_reference_without_sft_knows_nothing_and_the_small_one_is_as_rude_as_the_other():
    assert thumbs_up_rate(recipes.make_reference(recipes.SMALL_SHAPE, steps=0)) < 1e-6
    for small in (True, False):
        assert 0.2 < thumbs_up_rate(load_reference_model(small)) < 0.25


def test_the_shipped_model_stays_small():
    assert sum(path.stat().st_size for path in REFERENCE_FOLDER.iterdir()) <= 8 * 2**20
