"""SMP-LoRA in a training loop of your own: an ordinary loop with diffusers and peft, and five marked lines of smplora.

    python examples/foreign_loop.py [STEPS]

The model and the images are those of the quickstart; put in yours.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from smplora import SMPLoRAGame  # 1
from smplora.core.files import BUNDLED_FOLDER
from smplora.data.digits import write_private_digits


def main(steps: int = 200, batch_size: int = 8) -> dict[str, float]:
    torch.manual_seed(0)
    model = str(BUNDLED_FOLDER)
    tokenizer = CLIPTokenizer.from_pretrained(model, subfolder="tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder").requires_grad_(False)
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae").requires_grad_(False)
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet").requires_grad_(False)
    scheduler = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
    unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    adapter = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(adapter, lr=1e-3)

    with tempfile.TemporaryDirectory() as folder:
        images = write_private_digits(Path(folder))
        rows = [json.loads(line) for line in (images / "metadata.jsonl").read_text().splitlines()[:120]]
        pictures = np.stack([np.asarray(Image.open(images / row["file_name"])) for row in rows])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    tokens = tokenizer([row["text"] for row in rows], padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
        captions = text_encoder(tokens.input_ids).last_hidden_state

    # 80 images are trained on; the proxy attack model knows 40 of them, and 40 others that are not
    train, members, nonmembers = torch.arange(80), torch.arange(40), torch.arange(80, 120)

    def some(of: torch.Tensor) -> torch.Tensor:
        return of[torch.randint(len(of), (batch_size,))]

    def errors(batch: torch.Tensor) -> torch.Tensor:
        """The squared errors, before anything is averaged: what ``F.mse_loss(..., reduction="none")`` gives."""
        noise = torch.randn_like(latents[batch])
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(batch),))
        noised = scheduler.add_noise(latents[batch], noise, timesteps)
        predicted = unet(noised, timesteps, captions[batch]).sample
        return (predicted - noise).square()

    game = SMPLoRAGame(latents.shape[1:], mi_lambda=1.0, proxy_learning_rate=1e-3)  # 2
    seen, loss = None, torch.zeros(())
    for _ in range(steps):
        with torch.no_grad():
            known, unknown = errors(some(members)), errors(some(nonmembers))  # 3
        seen = game.update(known, unknown)  # 4

        loss = game.loss(errors(some(train)))  # 5, where errors(...).mean() was
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapter, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    assert seen is not None
    return {"loss": loss.item(), "MI gain": seen.mi_gain.item(), "proxy accuracy": seen.accuracy.item()}


if __name__ == "__main__":
    print(main(*(int(word) for word in sys.argv[1:2])))
