"""Full fine-tuning beyond the contract's tests: white-box attacks, precision, memory of the untouched weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from checkpoints import build, stock
from conftest import short_config
from small_networks import draw_little, learn_little
from smplora.adapters.full import FullAdaptation
from smplora.attacks.views import WhiteBox
from smplora.cli.main import main
from smplora.core.files import BUNDLED_FOLDER
from smplora.core.random_streams import generator
from smplora.core.reading import read_json
from smplora.experiments.tasks import train
from smplora.models.adapted import Adapted
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import LatentDiffusion, adaptation_loss
from smplora.models.load import load_model
from smplora.runs.subject import load_subject

CPU = torch.device("cpu")
UNET = "unet/diffusion_pytorch_model.safetensors"


def tuned(text_encoder: bool) -> tuple[LatentDiffusion, FullAdaptation]:
    """The bundled model after an update at random."""
    model = load_model(str(BUNDLED_FOLDER), CPU)
    adaptation = FullAdaptation(train_text_encoder=text_encoder)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameters in adaptation.attach(model).values():
            for p in parameters:
                p += 0.01 * torch.randn(p.shape, generator=rng)
    return model, adaptation


def batch_of(model: LatentDiffusion, count: int) -> Batch:
    latents = torch.randn((count, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    told = model.encode_captions(["a handwritten six", "a handwritten two"][:count], 32)
    return Batch(latents, torch.zeros_like(latents), told, tuple(map(str, range(count))))


@pytest.mark.parametrize("text_encoder", [False, True])
def test_gradients_of_whole_weights(text_encoder: bool) -> None:
    """Slow twin: autograd, one image at a time."""
    model, adaptation = tuned(text_encoder)
    batch = batch_of(model, 2)
    found = WhiteBox(Adapted(model, adaptation), batch, 0).gradients(["one"], [400], "adapter")
    layers: Any = adaptation.layers(model)
    weights = [layer.weight for layer in layers.adapter]
    assert len(weights) > 30
    for i in range(len(batch)):
        noise = torch.randn((1, 4, 8, 8), generator=generator(0, batch.digests[i], "one", "noise"))
        loss = adaptation_loss(model.error_maps(batch[i : i + 1], Draw(torch.tensor([400]), noise))).sum()
        slopes = torch.autograd.grad(loss, weights, allow_unused=True)
        norms = [0.0 if g is None else float(g.norm()) for g in slopes]
        np.testing.assert_allclose(found.norms[i, 0].numpy(), norms, rtol=1e-4, atol=1e-5 * max(norms))
        deltas = [update() for update in layers.updates.values()]
        along = [0.0 if g is None else float((g * d).sum()) for g, d in zip(slopes, deltas, strict=True)]
        atol = 1e-4 * max(map(abs, along))
        np.testing.assert_allclose(found.along_update[i, 0].numpy(), along, rtol=1e-3, atol=atol)
    assert all(p.grad is None and p.requires_grad for p in model.denoiser.parameters())


def test_the_copy_may_lie_anywhere() -> None:
    """As on a GPU, where it rests on the host while the model is trained: the base model must not need the copy to be
    where the weights are, and the weights come back as they were."""
    model, adaptation = tuned(False)
    base = load_model(str(BUNDLED_FOLDER), CPU)
    adaptation.train(model, True)
    trained = {name: p.clone() for name, p in adaptation.state_dict(model).items()}
    with Adapted(model, adaptation).without():
        for (name, p), (_, q) in zip(model.denoiser.named_parameters(), base.denoiser.named_parameters(), strict=True):
            assert torch.equal(p, q), name
    assert all(torch.equal(p, trained[name]) for name, p in adaptation.state_dict(model).items())


def test_weights_stay_exact_in_mixed_precision(image_folder: Path, tmp_path: Path) -> None:
    """A step of 1e-6 is far below the spacing of bf16 weights."""
    changes: dict[str, Any] = {"adaptation": "full", "mixed_precision": "bf16", "learning_rate": 1e-6}
    config = short_config(image_folder, tmp_path / "run", objective="lora", max_train_steps=1, **changes)
    after = load_file(train(config, progress=False) / UNET)
    before = load_file(BUNDLED_FOLDER / UNET)
    moved = [float((after[name] - tensor.float()).abs().max()) for name, tensor in before.items()]
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
    assert 0 < max(moved) < 1e-5
    assert sum(m > 0 for m in moved) > 0.9 * len(moved)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_trained_text_encoders_are_in_the_pipeline(family: str, noise_folder: Path, tmp_path: Path) -> None:
    folder = build(family, tmp_path / "model")
    config = short_config(
        noise_folder, tmp_path / "run", pretrained_model_name_or_path=str(folder), adaptation="full", aux_size=2,
        train_batch_size=2, max_train_steps=2, train_text_encoder=True, text_encoder_lr=1e-3,
    )  # fmt: skip
    run = train(config, progress=False)
    text = load_subject(str(run), None, "cpu").model.text
    told = {}
    for name, source in (("published", run), ("base", folder)):
        pipeline = stock(family, source)
        with torch.no_grad():
            told[name] = pipeline.encode_prompt(
                "a handwritten six", device=CPU, num_images_per_prompt=1, do_classifier_free_guidance=False
            )[0]
    with torch.no_grad():
        ours = text.embed(text.tokens(["a handwritten six"], 32))["encoder_hidden_states"]
    torch.testing.assert_close(ours, told["published"])
    assert (ours - told["base"]).norm() > 1e-3 * ours.norm()


def test_samples_are_the_published_pipelines(image_folder: Path, tmp_path: Path) -> None:
    run = train(short_config(image_folder, tmp_path / "run", adaptation="full", save_precision="fp16"), progress=False)
    assert {t.dtype for t in load_file(run / UNET).values()} == {torch.float16}
    settings: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 1.0}
    ours = load_subject(str(run), None, "cpu").model.generate(["a handwritten six"], [5], resolution=32, **settings)
    rng = torch.Generator().manual_seed(5)
    theirs = stock("sd1", run)(
        "a handwritten six", height=32, width=32, generator=rng, output_type="np", **settings
    ).images
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1).numpy(), theirs, atol=2e-3)


@pytest.mark.parametrize(("name", "attacks"), [("full", 3), ("textual_inversion", 1)])
def test_every_tier_fits_every_method(
    name: str, attacks: int, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks on gradients are left out where no layer was trained, unless they were asked for."""
    learn_little(monkeypatch)
    draw_little(monkeypatch)
    monkeypatch.setattr("smplora.config.audit.TIERS", {"quick": ("loss", "gsa1", "gradient_alignment")})
    more = {"initializer_token": "six"} if name == "textual_inversion" else {}
    config = short_config(
        image_folder, tmp_path / "run", adaptation=name, aux_size=3, max_train_steps=1, learning_rate=1e-3, **more
    )
    run = str(train(config, progress=False))
    few = ["--num_timesteps", "1", "--noise_pairs", "1", "--output_dir", str(tmp_path / "audit")]
    assert main(["audit", "--adapter", run, *few]) in (0, 3)
    content = read_json(tmp_path / "audit" / "audit.json")
    assert len(content["attacks"]) == len(content["settings"]["attacks"]) == attacks
    if attacks == 1:
        assert main(["audit", "--adapter", run, *few, "--attacks", "[gsa1]"]) == 2
