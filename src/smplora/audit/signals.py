"""Attacks' signals on the cells, batch after batch, each attack through the view of its access level.

Whatever was measured before, of the same images, model, attack and seed, is taken from the cache: a second audit with
another tier, or one after a kill, computes what is missing. A signal's key is made of everything that decides it, the
adapter and the code of the attack among it, and damaged entries are computed anew (cache.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smplora.attacks import views
from smplora.attacks.base import Attack, Pictures
from smplora.attacks.views import LOSSES, VIEWS, Memory
from smplora.core.arrays import Floats
from smplora.core.code_digest import code_digest
from smplora.core.errors import CheckpointError
from smplora.core.random_streams import generator
from smplora.core.reading import parse_json
from smplora.core.version import __version__
from smplora.data.pool import Sample
from smplora.models.batch import Batch
from smplora.results.manifest import CELLS
from smplora.runs.subject import FROM_METADATA, Loaded

ATTACKED = CELLS[:4]
AUX, TEST = ATTACKED[::2], ATTACKED[1::2]
LARGEST = 2**19  # numbers per image; larger signals, such as SDXL's error maps, are not kept
Signals = dict[tuple[str, str], Floats]  # {(attack, cell): [n, ...]}
OnBatch = Callable[[bool, str, int, bool], Any]  # on the base model?, the attack, how many images, from the cache?


@dataclass
class Piece:
    """A batch of a cell as attacks see it."""

    batch: Batch
    pictures: Pictures
    digest: str  # of all of it
    base_losses: Memory = field(default_factory=dict)  # of the base model: numbers that several attacks ask for


class Collector:
    """Measures a subject; its cells are encoded once, when they are first asked for."""

    def __init__(self, loaded: Loaded, seed: int, batch_size: int) -> None:
        self.loaded, self.seed, self.batch_size = loaded, seed, batch_size
        self.measured = 0  # signals that did not come from the cache
        self._cells: dict[str, tuple[list[Piece], list[int]]] = {}
        self._others = captions_of_others([s for c in ATTACKED for s in loaded.split.cells[c]], seed)
        self._names = {base: _model_names(loaded, seed, base) for base in (True, False)}

    def signals(
        self,
        attacks: Mapping[str, Attack],
        cells: Iterable[str],
        *,
        base: bool = False,
        on_batch: OnBatch | None = None,
    ) -> Signals:
        """Every attack's signals on every cell.

        Raises:
            CheckpointError: signals that are not finite numbers.

        Args:
            base: attack the base model, the adapter switched off.
            on_batch: called for each batch when it is through.
        """
        collected: Signals = {}
        for cell in cells:
            pieces, order = self.cell(cell)
            parts: dict[str, list[Floats]] = {name: [] for name in attacks}
            with self.loaded.adapted.without(base):  # switched once, not once per question
                for piece in pieces:
                    for name, signals, cached in self._measure(attacks, piece, base):
                        parts[name].append(signals)
                        if on_batch:
                            on_batch(base, name, len(signals), cached)
            collected |= {(name, cell): np.concatenate(part)[np.argsort(order)] for name, part in parts.items()}
        return collected

    def cell(self, name: str) -> tuple[list[Piece], list[int]]:
        """The batches of a cell, and the places of their images in it."""
        if name not in self._cells:
            samples, encoded = self.loaded.split.cells[name], self.loaded.encode(name)
            order, pieces, start = encoded.order, [], 0
            for batch in encoded.split(self.batch_size):
                rows = order[start : start + len(batch)]
                start += len(batch)
                pictures = Pictures(
                    captions=tuple(samples[row].caption for row in rows),
                    other_captions=tuple(self._others[samples[row].digest] for row in rows),
                    load_pixels=partial(self.loaded.pixels, [samples[row] for row in rows]),
                )
                piece = Piece(batch, pictures, _digest(batch, pictures))
                piece.base_losses = _named_keys(self._load(piece, self._named(None), base=True))
                pieces.append(piece)
            self._cells[name] = pieces, order
        return self._cells[name]

    @staticmethod
    def first_pictures(piece: Piece, count: int = 1) -> Pictures:
        """The part of the first images of a batch in its pictures."""
        first = piece.pictures
        return Pictures(first.captions[:count], first.other_captions[:count], lambda: first.load_pixels()[:count])

    def view(self, attack: Attack, piece: Piece, memory: Memory, *, base: bool = False) -> Any:
        """What the attack sees of a batch. ``memory`` is that of the batch: attacks that ask alike share the work."""
        loaded = self.loaded
        kind = VIEWS[attack.info.access]
        return kind(loaded.adapted, piece.batch, self.seed, piece.pictures, memory, loaded.latent_size, base)

    def cached(self, name: str, attack: Attack, piece: Piece, *, base: bool = False) -> bool:
        """Whether the attack need not be run on a batch."""
        return bool(self._load(piece, self._named(attack), base=base))

    def _measure(self, attacks: Mapping[str, Attack], piece: Piece, base: bool) -> Iterable[tuple[str, Floats, bool]]:
        memory: Memory = dict(piece.base_losses)
        for name, attack in attacks.items():
            description = self._named(attack)
            cached = self._load(piece, description, base=base)
            if cached:
                yield name, cached["signals"].numpy(), True
                continue
            signals = attack.signals(self.view(attack, piece, memory, base=base))
            self.measured += 1
            _check_numbers(name, signals, self.loaded.subject.label)
            if signals[0].size <= LARGEST:
                self._save({"signals": torch.from_numpy(np.ascontiguousarray(signals))}, piece, description, base=base)
            yield name, signals, False
        losses = {key: value for key, value in memory.items() if key[0] == LOSSES and not key[-1]}
        if len(losses) > len(piece.base_losses):
            piece.base_losses = losses
            self._save({json.dumps(key): value for key, value in losses.items()}, piece, self._named(None), base=True)

    def _named(self, attack: Attack | None) -> str:
        """Of a signal's key, what names the attack (None: losses of the base model), and the code that computes it."""
        adapted = self.loaded.adapted
        modules = {type(one).__module__ for one in (adapted.model, adapted.adaptation) if one} | {views.__name__}
        if attack is None:
            return f"{LOSSES} {code_digest(modules)}"
        return f"{described(attack)} {code_digest(modules | modules_of(attack))}"

    def _load(self, piece: Piece, what: str, *, base: bool) -> dict[str, Tensor]:
        entry = self.loaded.cache.load(*self._names[base], what, piece.digest) if self.loaded.cache else None
        return entry or {}

    def _save(self, tensors: Mapping[str, Tensor], piece: Piece, what: str, *, base: bool) -> None:
        if self.loaded.cache:
            self.loaded.cache.save(tensors, *self._names[base], what, piece.digest)


def _check_numbers(name: str, signals: Floats, label: str) -> None:
    wrong = int((~np.isfinite(signals).reshape(len(signals), -1).all(1)).sum())
    if wrong:
        raise CheckpointError(
            f"--attacks: '{name}' measured NaN or infinity for {wrong} of {len(signals)} images of a batch: '{label}' "
            "computes no finite numbers there. Try to generate with it, or leave the attack out"
        )


def captions_of_others(samples: Sequence[Sample], seed: int) -> dict[str, str]:
    """For each image, by its digest, the caption of another one: a random cycle through all of them.

    A function of which images there are and not of who is a member: captions of members alone for members would tell
    them by what was trained on, and a bound on epsilon allows no guess that knows the coins.
    """
    ordered = sorted(samples, key=lambda s: s.digest)
    order = torch.randperm(len(ordered), generator=generator(seed, "captions of others")).tolist()
    return {ordered[i].digest: ordered[j].caption for i, j in zip(order, order[1:] + order[:1], strict=True)}


def described(attack: Attack) -> str:
    """The attack with its options."""
    inner = getattr(attack, "inner", None)
    if inner:
        return f"low pass of {described(inner)}"
    options = _plain(attack)
    parts = [*getattr(attack, "parts", ()), *([attack.compared] if hasattr(attack, "compared") else [])]
    options["parts"] = [described(part) for part in parts]
    kind = type(attack)
    return f"{kind.__module__}.{kind.__qualname__} {json.dumps(options)}"


def _model_names(loaded: Loaded, seed: int, base: bool) -> tuple[str, ...]:
    """Of a signal's key, what names the model and how it is asked."""
    model, trained = loaded.model, loaded.subject.config
    names = [
        "signals",
        __version__,
        torch.__version__,
        model.device.type,
        str(model.dtype),
        model.digest,
        hashlib.sha256(model.alphas_cumprod.cpu().numpy().tobytes()).hexdigest(),
        model.prediction_type,
        json.dumps([getattr(trained, name) for name in FROM_METADATA]),
        str(seed),
    ]
    # scales may stand in another file than the weights; a base model with new tokens knows what they began as
    kind = loaded.adapted.adaptation
    adaptation = f"{type(kind).__qualname__} {json.dumps(_plain(kind))}"
    if not base:
        return (*names, loaded.adapter_sha256, adaptation, _weights_digest(loaded.adapted.proxy))
    return (*names, "base", adaptation if model.text_is_trained else "")


def _weights_digest(network: nn.Module | None) -> str:
    state = network.state_dict() if network else {}
    content = b"".join(state[name].cpu().contiguous().numpy().tobytes() for name in sorted(state))
    return hashlib.sha256(content).hexdigest()


def _plain(one: Any) -> dict[str, Any]:
    """The fields of a dataclass that JSON can hold."""
    values = {f.name: getattr(one, f.name) for f in fields(one) if f.compare} if is_dataclass(one) else {}
    return {n: dict(v) if isinstance(v, Mapping) else v for n, v in values.items() if _is_plain(v)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (bool, int, float, str))


def modules_of(attack: Attack) -> set[str]:
    """The modules of an attack's class and of those of its parts and of its encoder."""
    inner = [getattr(attack, name) for name in ("inner", "compared") if hasattr(attack, name)]
    parts = [*inner, *getattr(attack, "parts", ())]
    encoder = getattr(attack, "encoder", None)
    own = {type(one).__module__ for one in (attack, encoder) if is_ours(one)}
    return own.union(*map(modules_of, parts))


def is_ours(one: object) -> bool:
    """Whether its class stands in this package."""
    return type(one).__module__.partition(".")[0] == __name__.partition(".")[0]


def _digest(batch: Batch, pictures: Pictures) -> str:
    digest = hashlib.sha256(json.dumps([batch.digests, pictures.captions, pictures.other_captions]).encode())
    for tensor in (batch.mean, *(batch.conditioning[name] for name in sorted(batch.conditioning))):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _named_keys(entry: Mapping[str, Tensor]) -> Memory:
    return {tuple(parse_json(name)): value for name, value in entry.items()}
