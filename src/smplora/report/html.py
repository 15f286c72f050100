"""What all pages are made of: templates, pictures as data URIs, galleries."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

PAPER = """@inproceedings{luo2025privacy,
  title     = {Privacy-Preserving Low-Rank Adaptation against Membership Inference Attacks for Latent Diffusion Models},
  author    = {Luo, Zihao and Xu, Xilie and Liu, Feng and Koh, Yun Sing and Wang, Di and Zhang, Jingfeng},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2025},
  note      = {arXiv 2402.11989}
}"""


@dataclass(frozen=True)
class Strip:
    """A row of pictures as data URIs."""

    title: str
    mark: Markup
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures with the same captions and seeds, the real ones first."""

    title: str
    captions: tuple[str, ...]
    strips: tuple[Strip, ...]


def template(name: str) -> Template:
    """A template of this package: everything put into it is escaped, and what is missing is an error."""
    environment = Environment(
        loader=PackageLoader("smplora.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def with_code(text: str) -> Markup:
    """Plain text with what stands between backticks as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if k % 2 else Markup("{}").format(part) for k, part in enumerate(parts)
    )


def uris(pictures: Sequence[bytes]) -> tuple[str, ...]:
    """PNG files as data URIs."""
    return tuple(f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}" for picture in pictures)
