"""Attacks that audits run as a variant, or after the authors' code, beside the other form: AUCs on the same runs.

    python benchmarks/forms.py --runs DIR/lora DIR/distill_lora ..     -> benchmarks/results/forms.json

DIR is that of `smplora quickstart --output_dir DIR`; runs that are not named keep what was measured before. Forms that
no audit has are below. 50 images a cell: the standard error of an AUC is about 0.05, and that of a difference less,
since both forms see the same images.

distribution_trained: a kernel that is trained to tell generated from held-out images (Liu et al. 2020, which Li et al.
2025 take), k(x, y) = ((1 - e) exp(-|u(x) - u(y)|^2 / s^2) + e) exp(-|x - y|^2 / q^2); u is a network of three layers on
embeddings, and s, q and e are trained with it, to the greatest MMD^2 / its standard deviation.
clid_words: captions are cut into thirds of their words, not of their letters.
pfami_fresh_noise: image and crop see noise of their own, as in the authors' code.
secmi_network_unscaled: the authors' network on errors as they are.
quantile_network: quantiles by a ResNet of the pixels (Tang et al. 2024), not linear in a few features.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from common import audited, by_attack, command, ends, parser, write_result
from smplora.attacks.base import GreyBoxView
from smplora.attacks.classifiers import DEPTHS, WIDTHS, ResidualNetwork, ResNet
from smplora.attacks.methods import clid, pfami
from smplora.attacks.methods.distribution import DistributionAttack
from smplora.attacks.methods.loss import at_scale
from smplora.attacks.methods.quantile import LEVELS, QuantileAttack
from smplora.attacks.methods.secmi import RECIPE, SecMINetworkAttack
from smplora.config.catalogue.attacks import ATTACKS
from smplora.core.arrays import Bools, Floats
from smplora.core.random_streams import generator
from smplora.core.reading import read_json
from smplora.models.diffusion import adaptation_loss

FORMS = {  # what audits run: the other form
    "distribution": "distribution_trained", "clid": "clid_words", "pfami": "pfami_fresh_noise",
    "secmi_network": "secmi_network_unscaled", "quantile": "quantile_network", "error_map": "error_map_single",
    "loss": "loss_single", "rediffuse": "rediffuse_images", "sima_mc_calibrated": "sima_mc",
}  # fmt: skip
HERE = {
    "distribution_trained": "TrainedKernelAttack", "clid_words": "WordsAttack", "pfami_fresh_noise": "FreshNoiseAttack",
    "secmi_network_unscaled": "UnscaledNetworkAttack", "quantile_network": "QuantileNetworkAttack",
}  # fmt: skip
HIDDEN, STEPS, RATE = 50, 500, 5e-4  # of the trained kernel, as in Liu et al.'s experiments on vectors
Network = TypeVar("Network", bound=nn.Module)
EPOCHS = 20  # of the quantiles' network


class DeepKernel(nn.Module):
    """k above, for vectors [n, d]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [width, HIDDEN, HIDDEN, HIDDEN]
        layers = [part for inputs, outputs in pairwise(sizes) for part in (nn.Linear(inputs, outputs), nn.Softplus())]
        self.features = nn.Sequential(*layers[:-1])
        self.share = nn.Parameter(torch.tensor(-3.0))
        self.log_scales = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[n, d], [m, d] -> [n, m]."""
        share, scales = self.share.sigmoid(), self.log_scales.exp()
        near = torch.exp(-(_squared(self.features(x), self.features(y)) / scales[0]))
        kernel: Tensor = ((1 - share) * near + share) * torch.exp(-_squared(x, y) / scales[1])
        return kernel

    def power(self, x: Tensor, y: Tensor) -> Tensor:
        """MMD^2 of two samples of n over its standard deviation where they differ (Liu et al. 2020, eq. 3 and 5)."""
        n = len(x)
        across = self(x, y)
        h = self(x, x) + self(y, y) - across - across.T
        h = h - torch.diag(h.diagonal())
        squared, rows = h.sum() / (n * (n - 1)), h.sum(1)
        variance = 4 * rows.square().sum() / n**3 - 4 * h.sum().square() / n**4
        return squared / (variance + 1e-8).sqrt()


def descend(network: nn.Module, rate: float, losses: Iterable[Callable[[], Tensor]]) -> None:
    """A step of Adam for each of ``losses``, which are asked one after the other."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for loss in losses:
        with torch.enable_grad():
            found = loss()
        optimizer.zero_grad()
        found.backward()
        optimizer.step()


def fresh(seed: int, make: Callable[[], Network]) -> Network:
    """A network whose first weights are a function of ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        return make()


def _squared(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, None] - y[None]).square().sum(2)


class TrainedWitness:
    """mean over generated g of k(x, g) - mean over held-out h of k(x, h)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, signals: Floats, is_member: Bools) -> TrainedWitness:
        """``signals`` [n, 2, d]: the image's embedding, and that of one generated from its caption. Each step takes as
        many generated as held-out images."""
        random = generator(self.seed, "deep kernel")
        own = torch.from_numpy(signals).float()
        self.middle, self.spread = own.mean((0, 1)), float(own.std()) * own.shape[2] ** 0.5
        self.generated, self.held_out = self._scaled(own[:, 1]), self._scaled(own[~torch.from_numpy(is_member), 0])
        self.kernel = fresh(self.seed, lambda: DeepKernel(own.shape[2]))

        def loss() -> Tensor:
            rows = torch.randperm(len(self.generated), generator=random)[: len(self.held_out)]
            return -self.kernel.power(self.generated[rows], self.held_out)

        descend(self.kernel, RATE, [loss] * STEPS)
        return self

    @torch.no_grad()
    def score(self, signals: Floats) -> Floats:
        """[n, 2, d] -> [n]."""
        own = self._scaled(torch.from_numpy(signals[:, 0]).float())
        near, far = (self.kernel(own, others).mean(1) for others in (self.generated, self.held_out))
        return (near - far).double().numpy()

    def _scaled(self, x: Tensor) -> Tensor:
        return (x - self.middle) / self.spread


@dataclass(frozen=True)
class TrainedKernelAttack(DistributionAttack):
    """``distribution`` with the trained kernel."""

    info = replace(DistributionAttack.info, title="Nearer to generated images than held-out ones are, trained kernel")

    def scorer(self, seed: int) -> Any:
        """A fresh kernel."""
        return TrainedWitness(seed)


def words(caption: str) -> list[str]:
    """First, second and last third of the words, then nothing."""
    given = caption.split()
    places = [int(part * len(given) / clid.THIRDS) for part in range(clid.THIRDS + 1)]
    return [*(" ".join(given[start:end]) for start, end in pairwise(places)), ""]


@dataclass(frozen=True)
class WordsAttack(clid.CLiDAttack):
    """``clid`` with thirds of words."""

    info = replace(clid.CLiDAttack.info, title="CLiD, thirds of the words")

    def signals(self, view: GreyBoxView) -> Floats:
        """D_1 .. D_k, -loss: [b, k + 1]."""
        own = self._losses(view, view.captions)
        others = [self._losses(view, texts) for texts in zip(*map(words, view.captions), strict=True)]
        return torch.stack([*(other - own for other in others), -own], 1).double().numpy()


@dataclass(frozen=True)
class FreshNoiseAttack(pfami.PFAMIAttack):
    """``pfami`` with noise of their own for image and crops."""

    info = replace(pfami.PFAMIAttack.info, title="PFAMI, fresh noise")

    def signals(self, view: GreyBoxView) -> Floats:
        """[b, M, T]."""
        steps = [at_scale(t, view.num_train_timesteps) for t in pfami.TIMESTEPS]

        def losses(draw: str, latents: Tensor | None = None) -> Tensor:
            return torch.stack([adaptation_loss(view.error_maps(draw, t, latents=latents)) for t in steps], 1)

        own = losses("pair0")
        crops = [view.encode(pfami.cropped(view.pixels, share)) for share in pfami.shares(self.pfami_crops)]
        rises = [(losses(f"crop{k}", latents) - own) / own for k, latents in enumerate(crops)]
        return torch.stack(rises, 1).double().numpy()


class UnscaledResNet(ResNet):
    """Signals as they are."""

    def _scaled(self, signals: Floats) -> Tensor:
        return torch.from_numpy(signals).float()


@dataclass(frozen=True)
class UnscaledNetworkAttack(SecMINetworkAttack):
    """``secmi_network`` on errors as they are."""

    info = replace(SecMINetworkAttack.info, title="SecMI, network, errors as they are")

    def scorer(self, seed: int) -> ResNet:
        """A fresh network."""
        return UnscaledResNet(seed, RECIPE, torch.device("cpu"))


class QuantileNetwork:
    """s(x) minus the mean quantile that a ResNet-18 of the pixels expects; fitted on non-members, pinball loss."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, signals: Floats, is_member: Bools) -> QuantileNetwork:
        """``signals`` [n, 1 + 3 x H x W], H = W: s, then the image."""
        outside = signals[~is_member]
        self.mean, self.deviation = outside[:, 0].mean(), max(outside[:, 0].std(), 1e-12)
        target, images = self._target(outside), self._images(outside)
        levels, random = torch.tensor(LEVELS), generator(self.seed, "quantiles")
        self.network = fresh(self.seed, lambda: ResidualNetwork(3, len(LEVELS), WIDTHS, DEPTHS))

        def loss(rows: Tensor) -> Tensor:
            above = target[rows, None] - self.network(images[rows])
            return torch.maximum(levels * above, (levels - 1) * above).mean()

        orders = (torch.randperm(len(images), generator=random) for _ in range(EPOCHS))
        batches = (rows for order in orders for rows in order.split(16) if len(rows) > 1)
        descend(self.network, 1e-3, (partial(loss, rows) for rows in batches))
        return self

    @torch.no_grad()
    def score(self, signals: Floats) -> Floats:
        """[n, 1 + 3 x H x W] -> [n]."""
        usual = self.network.eval()(self._images(signals)).mean(1)
        return (self._target(signals) - usual).double().numpy()

    def _target(self, signals: Floats) -> Tensor:
        return torch.from_numpy((signals[:, 0] - self.mean) / self.deviation).float()

    @staticmethod
    def _images(signals: Floats) -> Tensor:
        edge = round(((signals.shape[1] - 1) / 3) ** 0.5)
        return torch.from_numpy(signals[:, 1:]).float().reshape(len(signals), 3, edge, edge)


@dataclass(frozen=True)
class QuantileNetworkAttack(QuantileAttack):
    """``quantile`` by a network."""

    info = replace(QuantileAttack.info, title="Quantile regression of the loss, network")

    def signals(self, view: GreyBoxView) -> Floats:
        """s, then the pixels."""
        score = super().signals(view)[:, :1]
        return np.concatenate([score, view.pixels.double().flatten(1).numpy()], 1)

    def scorer(self, seed: int) -> Any:
        """A fresh network."""
        return QuantileNetwork(seed)


def main(arguments: list[str] | None = None) -> None:
    """Audit and write."""
    options = parser(__file__, __doc__, "audit")
    options.add_argument("--runs", nargs="+", required=True)
    options.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS), help="what audits run")
    args = options.parse_args(arguments)
    ATTACKS.update({name: f"forms:{attack}" for name, attack in HERE.items()})
    path = args.results / "forms.json"
    record: dict[str, Any] = read_json(path) if path.exists() else {"adapters": {}}
    record["command"] = f"{command(options, args)} --runs DIR/RUN .."
    for run in args.runs:
        name = "/".join(Path(run).parts[-3:]) if "checkpoints" in run else Path(run).name
        with tempfile.TemporaryDirectory() as folder:
            names = list(dict.fromkeys(name for used in args.forms for name in (used, FORMS[used])))
            settings = {
                "adapter": run,
                "attacks": names,
                "device": "cpu",
                "output_dir": f"{folder}/audit",
                **args.audit,
            }
            auc = by_attack(audited(**settings), lambda numbers: ends(numbers.auc, 2))
        found = {used: {form: auc[form] for form in (used, FORMS[used])} for used in args.forms}
        record["adapters"][name] = {**record["adapters"].get(name, {}), **found}
        write_result(args.results, "forms", record, show=False)


if __name__ == "__main__":
    main()
