"""What LyCORIS adds to a weight, out of the factors that its files keep: LoHa, LoKr, Tucker forms, whole differences.

With w1 [O, r] [r, I] and alike w2, in files of LyCORIS (Yeh et al. 2023, arXiv 2309.14859) and of peft:

LoHa    dW = s (w1_a w1_b) * (w2_a w2_b), element by element (FedPara, Hyeon-Woo et al. 2021, arXiv 2108.06098)
LoKr    dW = s kron(w1, w2), each of them whole or w_a w_b
Tucker  t [r, r, k, k], w_a [r, O], w_b [r, I]: sum over i, j of t_ij w_a,i w_b,j, in place of w_a w_b
LoCon   lora_mid [r, r, k, k] and lora_down [r, I, 1, 1] are one lora_A [r, I, k, k]

s is alpha / r; 1 where nothing is factored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


@dataclass(frozen=True)
class Difference:
    """What is added to one weight or bias: a function of few numbers, so that it is made where it is needed."""

    factors: Mapping[str, Tensor]  # by their names in ``names.PRODUCTS``, or one whole tensor under "weight" or "bias"
    scale: float = 1.0
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        """See whether the factors fit, without computing anything.

        Raises:
            ValueError: they do not.
        """
        try:
            made = _product({name: tensor.to("meta") for name, tensor in self.factors.items()})
        except (RuntimeError, IndexError, KeyError) as error:
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in self.factors.items())
            raise ValueError(f"factors that do not fit or are not complete: {shapes}") from error
        object.__setattr__(self, "shape", tuple(made.shape))

    def tensor(self) -> Tensor:
        """In fp32: [O, I], [O, I, k, k] or, of a convolution, [O, I k k]."""
        return self.scale * _product(self.factors)


def rank_of(factors: Mapping[str, Tensor]) -> int | None:
    """r, which alpha is divided by; None: nothing is factored."""
    inner = next((factors[name] for name in ("hada_w1_b", "lokr_w2_b", "lokr_w1_b") if name in factors), None)
    return None if inner is None else len(inner)


def tucker(core: Tensor, outer: Tensor, inner: Tensor) -> Tensor:
    """[r, r, k, k], [r, O], [r, I] -> [O, I, k, k]."""
    return torch.einsum("ijkl,io,jm->omkl", core, outer, inner)


def through_mid(mid: Tensor, down: Tensor) -> Tensor:
    """LoCon's [r, r, k, k] after [r, I, 1, 1], as one convolution [r, I, k, k].

    Raises:
        ValueError: they do not fit.
    """
    if mid.dim() != 4 or down.flatten(1).shape[1:] != down.shape[1:2] or mid.shape[1] != len(down):
        raise ValueError(f"lora_mid {tuple(mid.shape)} and lora_down {tuple(down.shape)} do not fit")
    return torch.einsum("rjkl,jm->rmkl", mid, down.flatten(1))


def _product(factors: Mapping[str, Tensor]) -> Tensor:
    """dW / s.

    Raises:
        KeyError, RuntimeError: factors that are too many, too few or do not fit.
    """
    names = set(factors)
    if names in ({"weight"}, {"bias"}):
        return next(iter(factors.values()))
    if any(tensor.dim() != (4 if "_t" in name else 2) for name, tensor in factors.items() if name != "lokr_w2"):
        raise KeyError("dimensions")
    if names == set(LOHA):
        return (factors["hada_w1_a"] @ factors["hada_w1_b"]) * (factors["hada_w2_a"] @ factors["hada_w2_b"])
    if names == {*LOHA, "hada_t1", "hada_t2"}:
        first, second = ((factors[f"hada_{n}"] for n in (f"t{k}", f"w{k}_a", f"w{k}_b")) for k in (1, 2))
        return tucker(*first) * tucker(*second)
    left = {name for name in names if name.startswith("lokr_w1")}
    w1, w2 = _half(factors, "lokr_w1", left), _half(factors, "lokr_w2", names - left)
    return torch.kron(w1.reshape(*w1.shape, *[1] * (w2.dim() - 2)), w2.contiguous())


def _half(factors: Mapping[str, Tensor], name: str, given: set[str]) -> Tensor:
    """One of a Kronecker product's two: whole, or out of its factors."""
    if given == {name}:
        return factors[name]
    a, b = f"{name}_a", f"{name}_b"
    if given == {a, b}:
        return factors[a] @ factors[b]
    if given == {a, b, "lokr_t2"} and name == "lokr_w2":
        return tucker(factors["lokr_t2"], factors[a], factors[b])
    raise KeyError(name)
