"""LoHa, LoKr and LoCon of files against other implementations: peft's layers, and the layers in a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, inject_adapter_in_model
from safetensors.torch import save_file
from torch import Tensor, nn

from smplora.adapters.files.products import Difference, rank_of, through_mid
from smplora.adapters.files.read import read_adapter

PLACES = {"linear": "time_embedding.linear_1", "conv": "conv_in", "one": "conv_out"}  # names that the reader knows
WHOLE = {"r": 40, "alpha": 20}  # so many that LoKr keeps its second half whole


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv, self.one = nn.Linear(12, 18), nn.Conv2d(8, 12, 3), nn.Conv2d(8, 6, 1)


def made_by_peft(config: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the file's tensors under our names, dW by module as peft computes it)."""
    torch.manual_seed(0)
    net = inject_adapter_in_model(config, Net())
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    deltas = {PLACES[n]: getattr(net, n).get_delta_weight("default").detach() for n in PLACES}
    kind = {LoHaConfig: ("hada_", "loha"), LoKrConfig: ("lokr_", "lokr")}[type(config)]
    state = {}
    for name, tensor in net.named_parameters():
        module, _, part = name.partition(f".{kind[0]}")
        if part:
            state[f"unet.{PLACES[module]}.{kind[0]}{part}".removesuffix(".default")] = tensor.detach().contiguous()
    return state, deltas


CONFIGS: list[Any] = [
    LoHaConfig(r=4, alpha=6, target_modules=list(PLACES)),
    LoHaConfig(r=4, alpha=6, target_modules=list(PLACES), use_effective_conv2d=True),
    LoKrConfig(r=2, alpha=3, target_modules=list(PLACES)),
    LoKrConfig(r=2, alpha=3, target_modules=list(PLACES), use_effective_conv2d=True, decompose_factor=2),
    LoKrConfig(r=1, alpha=3, target_modules=list(PLACES), decompose_both=True, decompose_factor=3),
    LoKrConfig(**WHOLE, target_modules=list(PLACES)),
    LoHaConfig(r=4, alpha=6, target_modules=list(PLACES), alpha_pattern={"linear_1": 2.5}),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_files_of_peft_are_what_peft_computes(config: Any, tmp_path: Path) -> None:
    renamed = {PLACES["linear"].rpartition(".")[2]: "linear"}
    own = {name: config.alpha_pattern[old] for old, name in renamed.items() if old in config.alpha_pattern}
    told = {**config.to_dict(), "alpha_pattern": dict(config.alpha_pattern)}
    config.alpha_pattern = own
    state, deltas = made_by_peft(config)
    config.alpha_pattern = told["alpha_pattern"]
    save_file(state, tmp_path / "adapter_model.safetensors")
    told = {name: told[name] for name in ("r", "alpha", "alpha_pattern", "rank_pattern")}
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    file = read_adapter(tmp_path / "adapter_model.safetensors")
    assert not file.ranks
    for module, delta in deltas.items():
        found = file.differences[f"unet.{module}.weight"]
        assert found.shape == tuple(found.tensor().shape)
        torch.testing.assert_close(found.tensor().reshape(delta.shape), delta)


def test_lycoris_alpha_is_over_the_rank_or_nothing(tmp_path: Path) -> None:
    """Its files hold alpha as a tensor; where both halves of LoKr are whole it counts for nothing."""
    for config in (CONFIGS[0], CONFIGS[2], CONFIGS[5]):
        state, deltas = made_by_peft(config)
        flat = {}
        for name, tensor in state.items():
            module, _, part = name.removeprefix("unet.").rpartition(".")
            flat[f"lora_unet_{module.replace('.', '_')}.{part}"] = tensor
            flat[f"lora_unet_{module.replace('.', '_')}.alpha"] = torch.tensor(10.0)
        save_file(flat, tmp_path / "a.safetensors")
        for name, difference in read_adapter(tmp_path / "a.safetensors").differences.items():
            delta = deltas[name.removeprefix("unet.").removesuffix(".weight")]
            times = (10 if rank_of(difference.factors) else config.r) / config.alpha
            torch.testing.assert_close(difference.tensor().reshape(delta.shape), delta * times)


def test_a_tucker_locon_is_one_convolution() -> None:
    torch.manual_seed(0)
    down, mid, up = nn.Conv2d(5, 3, 1, bias=False), nn.Conv2d(3, 3, 3, bias=False), nn.Conv2d(3, 7, 1, bias=False)
    merged = nn.Conv2d(5, 3, 3, bias=False)
    merged.weight.data = through_mid(mid.weight.detach(), down.weight.detach())
    pictures = torch.randn(2, 5, 8, 8)
    torch.testing.assert_close(up(merged(pictures)), up(mid(down(pictures))))


def test_shapes_are_known_before_anything_is_computed() -> None:
    """A product of 10^16 numbers is refused by its shape, never made."""
    half = torch.ones(1, 1).expand(10**4, 10**4)
    assert Difference({"lokr_w1": half, "lokr_w2": half}).shape == (10**8, 10**8)
    with pytest.raises(ValueError, match="factors that do not fit or are not complete: lokr_w1"):
        Difference({"lokr_w1": half, "lokr_w1_a": half, "lokr_w2": half})
