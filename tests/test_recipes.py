"""The shipped assets are what their recipes make."""

import torch
from safetensors.torch import load_file

from kto_utils import recipes
from kto_utils.model import REFERENCE_FOLDER, load_reference_model


def test_the_recipe_gives_the_shipped_weights():
    made = recipes.make_reference().state_dict()
    shipped = load_file(REFERENCE_FOLDER / "model.safetensors")
    assert made.keys() == shipped.keys()
    for name, tensor in shipped.items():
        assert tensor.dtype == torch.float32
        # The file is the float64 result rounded to float32, so half a unit in the last place of each weight.
        assert torch.allclose(made[name], tensor.double(), rtol=1e-6, atol=1e-6), name


def test_saving_writes_what_loading_reads(tmp_path, monkeypatch):
    model = load_reference_model()
    recipes.save_reference(model, tmp_path)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (REFERENCE_FOLDER / name).read_bytes()


def test_the_shipped_model_stays_small():
    assert sum(path.stat().st_size for path in REFERENCE_FOLDER.iterdir()) <= 8 * 2**20
