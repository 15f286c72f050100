"""Build the bundled model: a latent diffusion model of the handwritten digits 0 to 4, from nothing but scikit-learn.

    python scripts/build_tiny_model.py            writes src/smplora/assets/{tiny/,extractor.safetensors}

Trains, seeded, in this order: the feature extractor for FID and KID, the VAE, the U-Net together with the CLIP text
encoder. The result is an ordinary diffusers folder. Writes the measured times and losses to
benchmarks/results/build_tiny_model.json, and pictures to look at to --pictures (none by default).
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from smplora.data import digits as examples
from smplora.models.encoders.digits import DigitFeatures

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "src" / "smplora" / "assets"
RESULTS = ROOT / "benchmarks" / "results"
TOKENS = 16  # captions are short; cross-attention over 77 tokens would cost more than the 16 pixels it serves
CAPTION_DROPOUT = 0.1  # for classifier-free guidance
WORDS = (
    "a an the of on in at with and photo picture drawing image person people face man woman dog cat house tree "
    "handwritten written bold thin large small digit number letter black white red green blue "
    + " ".join(examples.WORDS)
).split()


def progress(title: str, steps: int) -> Iterator[tuple[int, Callable[[Tensor], None]]]:
    """Yield (step, report); prints step, mean loss and rate ten times over the run."""
    start, losses = time.perf_counter(), []
    for step in range(steps):
        yield step, lambda loss: losses.append(loss.detach())
        if (step + 1) % max(1, steps // 10) == 0:
            rate = (step + 1) / (time.perf_counter() - start)
            print(
                f"{title}: step {step + 1}/{steps}  loss {torch.stack(losses).mean():.4f}  {rate:.1f} steps/s",
                flush=True,
            )
            losses.clear()


def shifted(images: Tensor, rng: torch.Generator, largest: int = 2) -> Tensor:
    """Each picture moved by up to ``largest`` pixels; the border is repeated. [b, 3, h, w] -> the same."""
    h = images.shape[-1]
    padded = F.pad(images, (largest,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * largest + 1, (len(images), 2), generator=rng)
    return torch.stack([p[:, y : y + h, x : x + h] for p, (y, x) in zip(padded, offsets.tolist(), strict=True)])


def build_tokenizer(folder: Path, words: Sequence[str] = WORDS, most: int = 2000) -> CLIPTokenizer:
    """A CLIP tokenizer that knows ``words`` as single tokens and spells everything else letter by letter.

    Args:
        most: tokens, among them those that words are put together from.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    bpe.train_from_iterator(
        [" ".join(words)],
        trainers.BpeTrainer(vocab_size=most, end_of_word_suffix="</w>", initial_alphabet=letters, show_progress=False),
    )
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    pieces = letters + [f"{letter}</w>" for letter in letters] + ["".join(pair) for pair in merges]
    vocabulary = {piece: i for i, piece in enumerate([*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)
    spelled = [word for word in words if len(tokenizer(word).input_ids) != 3]
    if spelled:
        raise RuntimeError(f"words that are not single tokens: {spelled}")
    tokenizer.save_pretrained(folder)
    return tokenizer


def train_vae(
    images: Tensor, steps: int, rng: torch.Generator, widths: tuple[int, int, int] = (16, 32, 32)
) -> AutoencoderKL:
    """32 x 32 x 3 -> 8 x 8 x 4. ``images`` [n, 3, 32, 32] in [-1, 1]; half of each batch is tinted and inverted at
    random, so that pictures other than black on white survive too."""
    vae = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _, report in progress("VAE", steps):
        x = shifted(images[torch.randint(len(images), (32,), generator=rng)], rng)
        ink, paper = torch.rand(2, 16, 3, 1, 1, generator=rng) * 2 - 1
        grey = (x[:16] + 1) / 2
        x = torch.cat([grey * paper + (1 - grey) * ink, x[16:]])
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=rng)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        loss = F.mse_loss(decoded, x) + 1e-6 * posterior.kl().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        report(loss)
    vae.eval().requires_grad_(False)
    # the diffusion works on latents of unit variance; SD's 0.18215 was found the same way
    vae.register_to_config(scaling_factor=round(1 / encode(vae, images, scaled=False).std().item(), 5))
    return vae


def encode(vae: AutoencoderKL, images: Tensor, *, scaled: bool = True) -> Tensor:
    """Posterior means [n, 4, 8, 8], times the scaling factor."""
    with torch.no_grad():
        means = torch.cat([vae.encode(x).latent_dist.mean for x in images.split(100)])
    return means * vae.config.scaling_factor if scaled else means


def train_denoiser(
    latents: Tensor,
    labels: list[int],
    captions: Sequence[str],
    tokenizer: CLIPTokenizer,
    scheduler: DDIMScheduler,
    steps: int,
    rng: torch.Generator,
    widths: tuple[int, int] = (32, 64),
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Epsilon prediction on ``latents`` [k, n, 4, 8, 8] (k shifted versions of each picture) with captions, of which
    ``labels`` are the numbers. Weights are an exponential moving average."""
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,  # the number of heads, as in SD 1.x
        cross_attention_dim=64,
        norm_num_groups=8,
    )
    texts = [*captions, ""]
    ids = tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids
    numbers = torch.tensor(labels)

    def loss() -> Tensor:
        pick = torch.randint(len(numbers), (64,), generator=rng)
        z = latents[torch.randint(len(latents), (64,), generator=rng), pick]
        empty = torch.rand(64, generator=rng) < CAPTION_DROPOUT
        which, place = numbers[pick].masked_fill(empty, len(texts) - 1).unique(return_inverse=True)
        noise = torch.randn(z.shape, generator=rng)
        t = torch.randint(scheduler.config.num_train_timesteps, (64,), generator=rng)
        states = text_encoder(ids[which]).last_hidden_state[place]
        return F.mse_loss(unet(scheduler.add_noise(z, noise, t), t, states).sample, noise)

    train_averaged("U-Net and text encoder", [*unet.parameters(), *text_encoder.parameters()], steps, loss)
    return unet.eval(), text_encoder.eval()


def train_averaged(
    title: str, parameters: Sequence[nn.Parameter], steps: int, loss_of_a_batch: Callable[[], Tensor]
) -> float:
    """AdamW with one cycle of its rate; the weights end as an exponential moving average. Returns the mean loss of the
    last tenth of the steps."""
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    last = []
    for step, report in progress(title, steps):
        loss = loss_of_a_batch()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        decay = min(0.998, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        report(loss)
        if step >= steps * 9 // 10:
            last.append(loss.item())
    with torch.no_grad():
        torch._foreach_copy_(list(parameters), average)
    return sum(last) / len(last)


def train_extractor(images: Tensor, labels: list[int], steps: int, rng: torch.Generator) -> tuple[DigitFeatures, float]:
    """``images`` [n, 3, 32, 32] in [0, 1]; the target is the pair (digit, quarter turns). Returns the last accuracy."""
    torch.manual_seed(rng.initial_seed())
    extractor, digits = DigitFeatures(), torch.tensor(labels)
    optimizer = torch.optim.AdamW(extractor.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    accuracy = 0.0
    for _, report in progress("feature extractor", steps):
        pick = torch.randint(len(images), (64,), generator=rng)
        turns = torch.randint(4, (64,), generator=rng)
        x = shifted(images[pick], rng)
        x = torch.stack([torch.rot90(p, k, (1, 2)) for p, k in zip(x, turns.tolist(), strict=True)])
        x = x + 0.05 * torch.randn(x.shape, generator=rng)
        logits, target = extractor.classify(x), digits[pick] * 4 + turns
        loss = F.cross_entropy(logits, target)
        accuracy = (logits.argmax(1) == target).float().mean().item()
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        report(loss)
    with torch.no_grad():
        features = extractor.eval()(images)
        extractor.centre.copy_(features.mean(0))
        extractor.scale.copy_(features.std(0))
    return extractor, accuracy


def as_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """[n, 3, h, w] in [0, 1]."""
    return torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2).float() / 255


def stable_diffusions_schedule() -> DDIMScheduler:
    """Of Stable Diffusion."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def reconstruction_mse(vae: AutoencoderKL, x: Tensor) -> float:
    """Of pictures [n, 3, h, w] in [0, 1], which are compared on [-1, 1]."""
    with torch.no_grad():
        return F.mse_loss(vae.decode(encode(vae, x * 2 - 1, scaled=False)).sample, x * 2 - 1).item()


def assembled(
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scheduler: DDIMScheduler,
) -> StableDiffusionPipeline:
    """An ordinary pipeline."""
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def main(arguments: list[str] | None = None) -> None:
    """Train everything and write the assets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vae_steps", type=int, default=1400)
    parser.add_argument("--unet_steps", type=int, default=4500)
    parser.add_argument("--extractor_steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--assets", type=Path, default=ASSETS, help="where to write")
    parser.add_argument("--only_extractor", action="store_true", help="leave the diffusion model as it is")
    parser.add_argument("--pictures", type=Path, help="folder for reconstructions and samples to look at")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    args = parser.parse_args(arguments)
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name], clock = round(time.perf_counter() - clock, 1), time.perf_counter()

    pictures, labels = examples.digit_images(examples.PRETRAINING_DIGITS)
    images = as_tensor(pictures)
    extractor, accuracy = train_extractor(
        images, labels, args.extractor_steps, torch.Generator().manual_seed(args.seed)
    )
    args.assets.mkdir(parents=True, exist_ok=True)
    save_file(extractor.state_dict(), args.assets / "extractor.safetensors")
    lap("extractor_s")
    if args.only_extractor:
        return

    unseen = as_tensor(examples.digit_images(examples.PRIVATE_DIGITS)[0])
    folder = args.assets / "tiny"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = build_tokenizer(folder / "tokenizer")
    scheduler = stable_diffusions_schedule()
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    vae = train_vae(images * 2 - 1, args.vae_steps, rng)
    lap("vae_s")

    latents = torch.stack([encode(vae, (images if k == 0 else shifted(images, rng, 1)) * 2 - 1) for k in range(8)])
    captions = [examples.caption(digit) for digit in examples.PRETRAINING_DIGITS]
    unet, text_encoder = train_denoiser(latents, labels, captions, tokenizer, scheduler, args.unet_steps, rng)
    lap("unet_and_text_encoder_s")
    pipeline = assembled(vae, unet, text_encoder, tokenizer, scheduler)
    pipeline.save_pretrained(folder)
    shutil.copy(ROOT / "scripts" / "tiny_model_card.md", folder / "README.md")
    record = {
        "command": "python scripts/build_tiny_model.py",
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "reconstruction_mse_0_to_4": reconstruction_mse(vae, images),
        "reconstruction_mse_5_to_9": reconstruction_mse(vae, unseen),
        "extractor_accuracy": accuracy,
        "bytes": sum(f.stat().st_size for f in args.assets.rglob("*") if f.is_file()),
    }
    write_record(record, args.results, "build_tiny_model")
    if args.pictures:
        show(pipeline, images, unseen, args.pictures)


def write_record(record: dict[str, object], results: Path, name: str) -> None:
    """Print it and keep it among the results."""
    text = json.dumps(record, indent=2)
    print(text)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(text + "\n")


def show(pipeline: StableDiffusionPipeline, seen: Tensor, unseen: Tensor, folder: Path) -> None:
    """Grids of reconstructions (pairs of rows: real, decoded) and samples (one row per digit)."""
    from diffusers.utils import make_image_grid

    folder.mkdir(parents=True, exist_ok=True)
    x = torch.cat([seen[::90][:10], unseen[::90][:10]])
    with torch.no_grad():
        y = (pipeline.vae.decode(encode(pipeline.vae, x * 2 - 1, scaled=False)).sample.clamp(-1, 1) + 1) / 2
    rows = torch.cat([x[:10], y[:10], x[10:], y[10:]])
    tiles = [
        Image.fromarray((p.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).resize((64, 64), Image.Resampling.NEAREST)
        for p in rows
    ]
    make_image_grid(tiles, 4, 10).save(folder / "reconstructions.png")
    pipeline.set_progress_bar_config(disable=True)
    tiles = []
    for guidance in (1.0, 2.0):
        for digit in range(10):
            prompt = [examples.caption(digit)] * 10
            rngs = [torch.Generator().manual_seed(i) for i in range(10)]
            made = pipeline(prompt, num_inference_steps=25, guidance_scale=guidance, generator=rngs).images
            tiles += [p.resize((64, 64), Image.Resampling.NEAREST) for p in made]
    make_image_grid(tiles, 20, 10).save(folder / "samples.png")


if __name__ == "__main__":
    main()
