"""Validity gates: what must hold before an audit's numbers mean anything. They run before the adapter is attacked on
the test cells; what sees no adapter (images, captions, base model) looks at all four cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView, Scorer
from smplora.attacks.classifiers import Perceptron
from smplora.attacks.load import load_attacks
from smplora.attacks.methods.loss import loss_vector
from smplora.attacks.scorers import Logistic
from smplora.audit.blind_baselines import (
    ALARM,
    STATISTICS,
    TOLERANCE,
    blind_check,
    compare,
    guess_blindly,
    near_duplicate_check,
    near_duplicates,
    permutation_check,
    phrases,
    picture_statistics,
)
from smplora.audit.conclusion import signals_of_half
from smplora.audit.signals import ATTACKED
from smplora.config.audit import AuditConfig
from smplora.config.catalogue.attacks import LOW_PASS, ON_BASE
from smplora.core.arrays import Bools, Floats
from smplora.core.console import progress, say_once
from smplora.core.random_streams import stream_seed
from smplora.core.registry import from_options
from smplora.data.cells import Cell
from smplora.data.pictures import load_pixels
from smplora.models.encoders.transformers import BUNDLED, LARGEST_FOR_BUNDLED, load_encoder
from smplora.models.proxy import at_size
from smplora.results.audit import Gate, Gates, TriedAttack
from smplora.runs.subject import Loaded
from smplora.statistics.claims import CLAIM_LEVEL
from smplora.statistics.power import detectable_auc

BASE = "base_model"
LOOKS = 4  # blind classifiers that share one chance of a false alarm
THUMBNAIL = 16  # pixels
PATCHES, AT_ONCE = 4, 64  # a side, of latents; images
SAID = 5  # phrases and pairs of files
COARSE = 0.75  # an audit that would miss such an AUC is said to be small
COARSE_MAP = (8, 8)  # what a linear classifier sees of larger error maps
MOST_COLUMNS = 256  # of the signals that the shuffled-labels gate refits ten times


@dataclass(frozen=True)
class BaseLoss(Attack):
    """Not an attack: the base model's own losses, gathered with the attacks' signals (and mostly computed for them)."""

    num_timesteps: int = 8
    noise_pairs: int = 2
    info = AttackInfo("The base model", Access.GREY_BOX, "", "")

    def signals(self, view: GreyBoxView) -> Floats:
        """log l_base(x; t): [b, T]."""
        return loss_vector(view, self.num_timesteps, self.noise_pairs, adapted=False).double().log().numpy()

    def scorer(self, seed: int) -> Scorer:
        """Never used out of this file."""
        return Logistic()


@dataclass(frozen=True)
class BlindFeatures:
    """What a blind classifier sees of the cells, in the order of ``ATTACKED``."""

    statistics: Floats  # [n, len(STATISTICS)] of picture_statistics
    features: Floats  # [n, k], see ``features_from``
    features_from: str  # "the bundled extractor", "the base model's VAE", "--attack_encoder"
    thumbnails: dict[str, Floats]  # by cell: [n_cell, d]
    captions: list[str]
    is_member: Bools
    files: dict[str, list[str]]  # by cell: the images' names, for the owner alone


# of the last split: several adapters of one split are audited in a row
_last_split: dict[tuple[object, ...], BlindFeatures] = {}


def blind_features(loaded: Loaded, attack_encoder: str, device: str) -> BlindFeatures:
    """Read every audited image once; what is seen depends on the split's images, which its seal names, and on what
    looks at them.

    Args:
        attack_encoder: an encoder that is at hand; the bundled one knows nothing above 64 pixels, where the base
            model's VAE takes its place.
        device: where the encoder computes.
    """
    key = (loaded.split.seal, *loaded.split.sizes.values(), loaded.resolution, attack_encoder, loaded.model.digest)
    if key not in _last_split:
        _last_split.clear()
        _last_split[key] = _read_features(loaded, attack_encoder, device)
    return _last_split[key]


def latent_features(cell: Cell) -> Floats:
    """The VAE's latents, averaged down to 4 x 4, in the order of the cell: [n, 16 c]."""
    parts = [F.adaptive_avg_pool2d(batch.mean.float().cpu(), PATCHES).flatten(1) for batch in cell.split(AT_ONCE)]
    rows: Floats = torch.cat(parts).double().numpy()[np.argsort(cell.order)]
    return rows


def _read_features(loaded: Loaded, attack_encoder: str, device: str) -> BlindFeatures:
    own = attack_encoder != BUNDLED
    encoder = load_encoder(attack_encoder, device) if own or loaded.resolution <= LARGEST_FOR_BUNDLED else None
    statistics, features, thumbnails, captions = [], [], {}, []
    for cell in ATTACKED:
        small = []
        for sample in progress(loaded.split.cells[cell], "look at images", "image"):
            picture = loaded.source.read(sample.file)
            pixels = (load_pixels([picture], loaded.resolution) + 1) / 2
            statistics.append(picture_statistics(pixels[0].numpy(), picture.size))
            if encoder:
                features.append(encoder.embedding(pixels)[0].numpy())
            thumbnail = torch.nn.functional.interpolate(pixels, size=(THUMBNAIL, THUMBNAIL), mode="area")
            small.append(thumbnail.flatten().numpy())
            captions.append(sample.caption)
        if not encoder:
            features += list(latent_features(loaded.encode(cell)))
        thumbnails[cell] = np.stack(small)
    is_member = np.concatenate([np.full(loaded.split.sizes[c], not c.endswith("nonmember")) for c in ATTACKED])
    files = {cell: [sample.file for sample in loaded.split.cells[cell]] for cell in ATTACKED}
    seen_by = "--attack_encoder" if own else "the bundled extractor" if encoder else "the base model's VAE"
    return BlindFeatures(np.stack(statistics), np.stack(features), seen_by, thumbnails, captions, is_member, files)


def blind_checks(blind: BlindFeatures, seed: int) -> tuple[list[Gate], list[str]]:
    """Images and captions alone, each with its own classifier, and single numbers and phrases; near-duplicates. Returns
    the gates, and sentences on picture statistics that perhaps differ.

    Which phrases and which files it is the owner is told on the screen; results hold no words of captions, no names.
    """
    table, words = phrases(blind.captions)
    differences = {
        name: compare(columns, names, blind.is_member, np.random.default_rng(stream_seed(seed, "compared", name)))
        for name, columns, names in (
            ("image_statistics", blind.statistics, STATISTICS),
            ("captions", table, ["a phrase of the captions"] * len(words)),
        )
    }
    checks = []
    for name, what, features in (
        ("image_statistics", "image statistics", blind.statistics),
        ("image_features", f"image features ({blind.features_from})", blind.features),
        ("captions", "captions", blind.captions),
    ):
        if not isinstance(features, np.ndarray) and len(set(features)) == 1:
            checks.append(Gate(name, True, "all captions are the same", None))
            continue
        scores = guess_blindly(features, blind.is_member, stream_seed(seed, "blind", name))
        checks.append(blind_check(name, what, scores, blind.is_member, LOOKS, differences.get(name, ())))
    if told := [f"'{words[one.column]}'" for one in differences["captions"] if one.p < ALARM][:SAID]:
        say_once(f"phrases that are more frequent among members or non-members: {', '.join(told)}")
    pairs = near_duplicates(blind.thumbnails)
    for cells, places in pairs.items():
        one, other = cells.split(" and ")
        named = ", ".join(f"'{blind.files[one][i]}' and '{blind.files[other][j]}'" for i, j in places[:SAID])
        say_once(f"nearly the same, {cells}: {named}" + f" and {len(places) - SAID} more" * (len(places) > SAID))
    odd = [one.sentence for one in differences["image_statistics"] if one.p < ALARM]
    return [*checks, near_duplicate_check(pairs)], odd


def base_attacks(names: Sequence[str], config: AuditConfig, *, gradients: bool) -> dict[str, Attack]:
    """What is tried on the base model: its losses, and of the attacks ``names`` those that need no adapter.

    Args:
        gradients: whether the adapter sits on layers whose gradients can be looked at.
    """
    twins = dict.fromkeys(ON_BASE[plain] for name in names if (plain := name.removesuffix(LOW_PASS)) in ON_BASE)
    loaded = load_attacks(list(twins), config)
    without_adapter = {
        n: attack for n, attack in loaded.items() if gradients or attack.info.access is not Access.WHITE_BOX
    }
    return {BASE: from_options(BaseLoss, config), **without_adapter}


def base_check(
    attacks: Mapping[str, Attack], signals: Mapping[tuple[str, str], Floats], is_member: Bools, seed: int
) -> Gate:
    """Attacks on the base model, without the adapter: each one's signals on all four cells to a logistic regression,
    out of fold, so that sign and timestep are found too. All share the chance of a false alarm of one check."""
    checks = {}
    for name in attacks:
        columns = _columns(np.concatenate([signals[name, cell] for cell in ATTACKED]))
        scores = guess_blindly(columns, is_member, stream_seed(seed, "blind", name))
        checks[name] = blind_check(BASE, "the base model", scores, is_member, LOOKS * len(attacks))
    strongest = max(checks, key=lambda name: _lowest(checks[name]))
    strongest_of = f"; '{attacks[strongest].info.title}' is the strongest of {len(attacks)} attacks on it"
    attempts = tuple(TriedAttack(name, check.auc) for name, check in checks.items() if check.auc)
    result = checks[strongest]
    return replace(result, sentence=result.sentence + strongest_of * (len(attacks) > 1), attacks=attempts)


def _columns(signals: Floats) -> Floats:
    """Signals for a linear classifier [n, k]: of maps [n, draws, c, h, w] the logarithm of the mean over draws, coarse;
    of anything else the signals."""
    if signals.ndim < 5:
        return signals.reshape(len(signals), -1)
    maps = torch.from_numpy(signals).float().mean(1)
    coarse = at_size(maps, COARSE_MAP) if maps.shape[-1] > COARSE_MAP[1] or maps.shape[-2] > COARSE_MAP[0] else maps
    columns: Floats = coarse.clamp(min=1e-12).log().flatten(1).double().numpy()
    return columns


def _lowest(check: Gate) -> float:
    return check.auc.low if check.auc else 0.0


def shuffled_check(
    attacks: Mapping[str, Attack],
    order: list[str],
    signals: Mapping[tuple[str, str], Floats],
    aux_member: Bools,
    seed: int,
) -> Gate:
    """The strongest attack on aux that is cheap to refit, with shuffled labels.

    Args:
        order: attacks, strongest on aux first.
        signals: {(attack, cell): [n, ...]} of the aux cells.
    """
    for name in order:
        aux = signals_of_half(signals, name, "aux")
        if np.prod(aux.shape[1:]) <= MOST_COLUMNS and not isinstance(attacks[name].scorer(seed), Perceptron):
            return permutation_check("shuffled_labels", attacks[name], aux, aux_member, stream_seed(seed, "shuffle"))
    sentence = "shuffled labels: not tried, as no attack here is cheap to refit ten times"
    return Gate("shuffled_labels", None, sentence, None)


def small_cells(sizes: Mapping[str, int]) -> list[str]:
    """A sentence where the test cells are too small to say much."""
    members, others = sizes["test_member"], sizes["test_nonmember"]
    reach = detectable_auc(members, others, CLAIM_LEVEL)
    if reach <= COARSE:
        return []
    return [
        f"small cells: with {members} test members and {others} test non-members an AUC below {reach:.2f} would "
        "probably have gone unseen"
    ]


def gates(checks: Sequence[Gate], notes: Sequence[str]) -> Gates:
    """All gates together; ``passed`` is None where nothing could be checked."""
    known = [check.passed for check in checks if check.passed is not None]
    return Gates(all(known) if known else None, TOLERANCE, tuple(checks), tuple(notes))


def failures(checks: Sequence[Gate]) -> list[str]:
    """Sentences of the checks that failed."""
    return [check.sentence for check in checks if check.passed is False]
