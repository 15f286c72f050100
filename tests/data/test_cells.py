"""Walks through cells of several shapes, choices of variants and wordings: every image equally often, functions of
(seed, name, number of the batch, digest)."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from smplora.data.cells import Cell, ShapeGroup, take, walk
from smplora.training.batches import Feed


def group(height: int, width: int, places: list[int], variants: int = 1, wordings: int = 1) -> ShapeGroup:
    """Latents are filled with 100 x place + number of the variant."""
    n = len(places)
    values = torch.tensor([100.0 * place + v for place in places for v in range(variants)])
    mean = values.view(-1, 1, 1, 1).expand(-1, 4, height, width).clone()
    return ShapeGroup(
        mean,
        torch.zeros_like(mean),
        conditioning={"time_ids": values[:, None].clone()},
        variants=tuple(tuple(range(i * variants, (i + 1) * variants)) for i in range(n)),
        wordings=tuple(tuple(range(place * wordings, (place + 1) * wordings)) for place in places),
        digests=tuple(f"digest {place}" for place in places),
        places=tuple(places),
    )


def cell(groups: list[ShapeGroup], wordings: int = 1, dropout: float = 0.0) -> Cell:
    count = sum(len(g) for g in groups) * wordings
    return Cell(tuple(groups), {"text": torch.arange(count + 1.0)[:, None]}, empty=count, dropout=dropout)


THREE = cell([group(4, 4, [0, 3, 4, 6, 8]), group(2, 8, [1, 5, 7]), group(8, 2, [2])])
ONE = cell([group(4, 4, list(range(7)))])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11])
def test_every_image_comes_up_equally_often(size: int) -> None:
    """N batches in a row hold each of the N images exactly ``size`` times, whatever the shapes."""
    for lap in range(3):
        batches = [take(THREE, size, lap * len(THREE) + k, 0, "train") for k in range(len(THREE))]
        assert all(len(b) == size for b in batches)
        assert set(Counter(d for b in batches for d in b.digests).values()) == {size}


def test_a_pass_of_a_shape_visits_each_image_once() -> None:
    seen: dict[int, list[str]] = {}
    for turn in range(4 * len(THREE)):
        batch = take(THREE, 2, turn, 3, "train")
        seen.setdefault(batch.mean.shape[-1], []).extend(batch.digests)
    for width, count in ((4, 5), (8, 3), (2, 1)):
        digests = seen[width]
        assert all(len(set(digests[i : i + count])) == count for i in range(0, len(digests), count))


def test_one_shape_is_the_plain_walk() -> None:
    for turn in range(9):
        assert list(take(ONE, 3, turn, 0, "train").digests) == [f"digest {i}" for i in walk(7, 3 * turn, 3, 0, "train")]


def test_batches_are_functions_of_seed_name_and_number() -> None:
    rows = [take(THREE, 2, 5, *names).digests for names in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))]
    orders = [[take(THREE, 2, k, *n).digests for k in range(12)] for n in ((0, "a"), (1, "a"), (0, "b"))]
    assert rows[0] == rows[1]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_rows_keep_together() -> None:
    for turn in range(20):
        batch = take(THREE, 3, turn, 0, "train")
        places = [int(d.split()[1]) for d in batch.digests]
        assert batch.mean[:, 0, 0, 0].tolist() == [100 * p for p in places]
        assert batch.conditioning["text"][:, 0].tolist() == places
        assert batch.conditioning["time_ids"][:, 0].tolist() == [100 * p for p in places]


def test_variants_and_wordings_are_all_used_and_go_together() -> None:
    rich = cell([group(4, 4, [0, 1], variants=4, wordings=3)], wordings=3)
    chosen: Counter[tuple[str, int, int]] = Counter()
    for turn in range(600):
        batch = take(rich, 1, turn, 0, "train")
        place = int(batch.digests[0].split()[1])
        variant, wording = int(batch.mean[0, 0, 0, 0]) - 100 * place, int(batch.conditioning["text"][0, 0]) - 3 * place
        assert batch.conditioning["time_ids"][0, 0] == batch.mean[0, 0, 0, 0]
        chosen[batch.digests[0], variant, wording] += 1
    assert len(chosen) == 2 * 4 * 3
    assert min(chosen.values()) > 10  # 25 expected of each
    again = [take(rich, 2, turn, 0, "train").mean[:, 0, 0, 0].tolist() for turn in range(20)]
    assert again == [take(rich, 2, turn, 0, "train").mean[:, 0, 0, 0].tolist() for turn in range(20)]


def test_captions_are_dropped_at_the_rate() -> None:
    told = cell([group(4, 4, list(range(10)), wordings=2)], wordings=2, dropout=0.3)
    texts = torch.cat([take(told, 10, turn, 0, "train").conditioning["text"][:, 0] for turn in range(200)])
    assert 0.25 < (texts == told.empty).float().mean() < 0.35
    assert len(texts.unique()) == 21
    assert not any((b.conditioning["text"] == told.empty).any() for b in told.split(3))


def test_audits_see_first_variants_and_wordings_of_all() -> None:
    rich = cell([group(4, 4, [0, 2], 3, 2), group(2, 8, [1, 3, 4], 3, 2)], wordings=2)
    batches = list(rich.split(2))
    assert [len(b) for b in batches] == [2, 2, 1]
    values = torch.cat([b.mean[:, 0, 0, 0] for b in batches])
    assert values.tolist() == [0, 200, 100, 300, 400]
    assert torch.cat([b.conditioning["text"][:, 0] for b in batches]).tolist() == [0, 4, 2, 6, 8]
    assert rich.order == [0, 2, 1, 3, 4]


def test_parts_of_a_cell() -> None:
    part = THREE[2:7]
    assert len(part) == 5
    assert sorted(part.order) == [0, 1, 2, 3, 4]
    in_order = sorted(zip(part.order, (d for b in part.split(9) for d in b.digests), strict=True))
    assert [d for _, d in in_order] == [f"digest {k}" for k in range(2, 7)]
    assert len(THREE[:0].groups) == 0
    assert THREE[:1].whole().digests == ("digest 0",)
    with pytest.raises(ValueError, match="unpack"):
        THREE.whole()


@pytest.mark.parametrize("processes", [1, 2])
def test_the_proxy_sees_both_kinds_whatever_their_shapes(processes: int) -> None:
    """Shares of two processes are those of one with the doubled batch, and no part mixes shapes."""
    other = cell([group(4, 4, [0, 1, 2]), group(2, 8, [3, 4])])
    whole = Feed(THREE, THREE, other, 4, 1, 0, 1000)
    for turn in range(12):
        wanted = whole.proxy(turn)
        feeds = [Feed(THREE, THREE, other, 4 // processes, 1, 0, 1000, k, processes) for k in range(processes)]
        shares = [f.proxy(turn) for f in feeds]
        assert all(torch.equal(s.timesteps, wanted.timesteps) for s in shares)
        assert all(torch.equal(s.is_member, wanted.is_member) for s in shares)
        for share in shares:
            assert sum(len(batch) for batch, _ in share.parts) == 8 // processes
            for batch, draw in share.parts:
                assert draw.noise.shape == batch.mean.shape
        noises = [torch.cat([d.noise.flatten(1) for _, d in s.parts]) for s in shares]
        members_first = torch.stack(noises).unflatten(1, (2, -1)).transpose(0, 1).flatten(0, 2)
        assert torch.equal(members_first, torch.cat([d.noise.flatten(1) for _, d in wanted.parts]))
    assert {len(whole.proxy(turn).parts) for turn in range(12)} == {1, 2}


def test_the_proxy_may_learn_from_the_whole_training_set() -> None:
    """Each of its members comes up equally often; by default only those of the aux cell."""
    for options, expected in (({}, THREE[:3]), ({"proxy_member": THREE}, THREE)):
        feed = Feed(THREE, THREE[:3], ONE, 2, 1, 0, 1000, **options)
        pairs = [feed.proxy(turn) for turn in range(len(expected))]
        seen = Counter(d for pair in pairs for d in pair.parts[0][0].digests[:2])  # members first
        assert seen == Counter({d: 2 for batch in expected.split(9) for d in batch.digests})


def test_repeated_images_come_up_as_often_as_they_are_repeated() -> None:
    often = [1, 3, 1, 2, 1, 1, 4, 1, 1]
    more = THREE.repeated(often)
    assert sorted(more.order) == list(range(sum(often)))
    batches = [take(more, 2, k, 0, "train") for k in range(len(more))]
    counts = Counter(d for b in batches for d in b.digests)
    assert counts == {f"digest {place}": 2 * count for place, count in enumerate(often)}
    shown = [(float(image[0, 0, 0]), digest) for b in batches for image, digest in zip(b.mean, b.digests, strict=True)]
    assert all(digest == f"digest {value / 100:.0f}" for value, digest in shown)
    assert THREE.repeated([1] * 9) is THREE
