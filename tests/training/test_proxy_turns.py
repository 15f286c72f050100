"""When the proxy learns, and from whom: drawn anew, or with --proxy_sharing from the adapter's own batch."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.config.train import TrainConfig
from smplora.core.random_streams import stream_seed
from smplora.data.cells import take, walk
from smplora.experiments.tasks import train
from smplora.objectives.game import SMPLoRAGame
from smplora.runs.subject import find_subject, load_adapted
from smplora.training.batches import Feed, training_draw
from smplora.training.distributed import make_accelerator
from smplora.training.proxy_turns import ProxyTurns
from toys import SHAPE, toy_batch, toy_cell, toy_model

MODEL = toy_model(None).model
TRAIN, NONMEMBERS = toy_cell(toy_batch(8, 1)), toy_cell(toy_batch(6, 2))
FEED = Feed(TRAIN, TRAIN[:4], NONMEMBERS, batch_size=4, accumulated=2, seed=3, num_train_timesteps=1000)


def turns(feed: Feed = FEED, **options: object) -> ProxyTurns:
    """Of a proxy that learns fast, so that every turn shows."""
    alone = make_accelerator(torch.device("cpu"))
    torch.manual_seed(0)
    game = SMPLoRAGame(SHAPE, proxy_learning_rate=0.1, proxy_sees_timestep=True)
    return ProxyTurns(TrainConfig(**options), 7, MODEL, game, feed, alone, lambda: torch.autocast("cpu", enabled=False))


def weights(of: SMPLoRAGame) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in of.proxy.parameters()])


@pytest.mark.parametrize("sharing", ["aux", "all"])
def test_shared_error_maps_are_those_of_the_adapters_first_batch(sharing: str) -> None:
    """Step by step against the game's own ``update`` with members picked by hand."""
    ours, by_hand = turns(proxy_sharing=sharing), turns().game
    by_hand.load_state_dict(deepcopy(ours.game.state_dict()))
    counts = []
    for step in range(6):
        assert list(ours.before(step)) == []
        batch, draw = next(FEED.adapter(step))
        errors = MODEL.error_maps(batch, draw)
        gains = list(ours.after(step, errors, draw.timesteps))
        members = batch.digests if sharing == "all" else TRAIN.groups[0].digests[:4]
        picked = [i for i, name in enumerate(batch.digests) if name in members]
        others = take(NONMEMBERS, 4, step, 3, "aux_nonmember")
        theirs = training_draw(others, 1000, 3, "proxy 1", step)
        others, theirs = others[: len(picked)], theirs[: len(picked)]
        counts.append(len(picked))
        assert len(gains) == (len(picked) > 0)
        if picked:
            torch.manual_seed(stream_seed(7, "dropout", step))
            by_hand.update(errors[picked], MODEL.error_maps(others, theirs), draw.timesteps[picked], theirs.timesteps)
        assert torch.equal(weights(ours.game), weights(by_hand))
    assert counts == [4] * 6 if sharing == "all" else len(set(counts)) > 1  # aux members come as they come


def test_without_a_member_in_the_batch_the_proxy_waits() -> None:
    strangers = replace(FEED, aux_member=toy_cell(toy_batch(4, 9)))
    ours = turns(strangers, proxy_sharing="aux")
    before = weights(ours.game)
    batch, draw = next(strangers.adapter(0))
    assert list(ours.after(0, MODEL.error_maps(batch, draw), draw.timesteps)) == []
    assert torch.equal(weights(ours.game), before)


def test_the_proxy_has_its_turn_every_so_many_steps() -> None:
    ours, every = turns(proxy_interval=3), turns()
    changed = []
    for step in range(7):
        before = weights(ours.game)
        list(ours.before(step))
        changed.append(not torch.equal(weights(ours.game), before))
        if changed[-1]:
            list(every.before(step // 3))  # the turns are those of a game without pauses
            assert torch.equal(weights(ours.game), weights(every.game))
    assert changed == [True, False, False, True, False, False, True]


def test_the_size_of_the_proxys_batch() -> None:
    """It is of both kinds, and says nothing of the adapter's."""
    larger = replace(FEED, proxy_batch_size=6)
    (((batch, draw),), timesteps) = (pair := larger.proxy(0)).parts, pair.timesteps
    assert len(batch) == len(draw.noise) == len(timesteps) == 12
    assert int(pair.is_member.sum()) == 6
    assert len(next(FEED.adapter(0))[0]) == len(next(larger.adapter(0))[0]) == 4


def test_a_smaller_batch_of_the_proxy_shares_the_first_rows() -> None:
    batch, draw = next(FEED.adapter(0))
    errors = MODEL.error_maps(batch, draw)
    learned = []
    for spoiled in (slice(2, 2), slice(2, 4), slice(1, 2)):  # no row, those beyond the first two, one of them
        few = turns(replace(FEED, proxy_batch_size=2), proxy_sharing="all")
        maps = errors.clone()
        maps[spoiled] += 1
        list(few.after(0, maps, draw.timesteps))
        learned.append(weights(few.game))
    assert torch.equal(learned[0], learned[1])
    assert not torch.equal(learned[0], learned[2])


@pytest.mark.parametrize("count", [1, 4, 5, 6])
def test_shares_of_three_processes_are_the_whole(count: int) -> None:
    parts = [replace(FEED, batch_size=2, process=p, processes=3).nonmembers(0, count) for p in range(3)]
    (whole, draw), timesteps = replace(FEED, batch_size=6).nonmembers(0, count)
    assert len({len(batch) for (batch, _), _ in parts}) == 1  # or processes could not gather
    assert sum((batch.digests for (batch, _), _ in parts), ())[:count] == whole.digests
    assert torch.equal(torch.cat([d.noise for (_, d), _ in parts])[:count], draw.noise)
    assert torch.equal(timesteps, draw.timesteps)
    assert all(torch.equal(told, timesteps) for _, told in parts)


def test_the_walk_is_the_same_however_it_is_cut() -> None:
    """Against a walk of one place at a time; passes are permutations."""
    whole = list(walk(7, 0, 21, 5, "name"))
    assert [next(iter(walk(7, place, 1, 5, "name"))) for place in range(21)] == whole
    assert list(walk(7, 5, 12, 5, "name")) == whole[5:17]
    assert all(sorted(whole[start : start + 7]) == list(range(7)) for start in (0, 7, 14))


@pytest.mark.parametrize("sharing", ["aux", "all"])
def test_a_shared_game_resumes_exactly(sharing: str, image_folder: Path, tmp_path: Path) -> None:
    """With an adapter's dropout. Who saw test members as members is no attack on them."""
    options = {"proxy_sharing": sharing, "proxy_interval": 2, "lora_dropout": 0.3, "mi_lambda": 1.0}
    run = train(short_config(image_folder, tmp_path, **options), progress=False)
    whole = (run / ADAPTER_FILE).read_bytes()
    train(short_config(image_folder, tmp_path, resume_from_checkpoint="checkpoint-3", **options), progress=False)
    assert (run / ADAPTER_FILE).read_bytes() == whole
    proxy = load_adapted(find_subject(str(run)), torch.device("cpu")).proxy
    assert (proxy is None) == (sharing == "all")


def test_dropout_of_the_adapter_resumes_exactly_beside_a_proxy(image_folder: Path, tmp_path: Path) -> None:
    """The proxy's error maps are made before the adapter's dropout of that step is drawn."""
    run = train(short_config(image_folder, tmp_path, lora_dropout=0.5), progress=False)
    whole = (run / ADAPTER_FILE).read_bytes()
    train(short_config(image_folder, tmp_path, lora_dropout=0.5, resume_from_checkpoint="checkpoint-3"), progress=False)
    assert (run / ADAPTER_FILE).read_bytes() == whole


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"proxy_sharing": "aux", "proxy_steps": 2}, "--proxy_steps got 2; with --proxy_sharing aux"),
        ({"proxy_sharing": "aux", "proxy_members": "train"}, "give --proxy_sharing all, or leave one out"),
        ({"proxy_sharing": "all", "proxy_batch_size": 9, "train_batch_size": 8}, "up to --train_batch_size 8"),
        ({"proxy_interval": 0}, "--proxy_interval got 0; allowed: 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], said: str) -> None:
    problems = TrainConfig(train_data_dir=".", objective="smp_lora", **options).problems()
    assert len(problems) == 1
    assert said in problems[0]
