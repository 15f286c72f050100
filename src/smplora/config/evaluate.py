"""Options of an evaluation: how many images, and what they are looked at with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Optional

from smplora.config.audit import subject_problems
from smplora.config.checks import at_least, if_any, with_sizes
from smplora.config.subject import SubjectOptions
from smplora.core.registry import unknown

FEATURES = {  # name -> where its weights come from unless NAME=SOURCE says so; "" where that must be said
    "tiny": "bundled",
    "inception-768": "",
    "inception-2048": "",
    "dinov2": "facebook/dinov2-large",
    "clip": "openai/clip-vit-large-patch14-336",
}
WITH_WEIGHTS = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SubjectOptions):
    """Generate images with an adapter and measure their quality: KID and FID, against held-out and against training images; precision, recall, density, coverage; whether they lie nearer to the training images than to others."""

    fetches_for_runs: ClassVar[bool] = True

    output_dir: Optional[str] = None
    """Where quality.json and the pictures go. Default: quality/ beside the adapter."""
    num_images: int = 200
    """Images to generate, with the captions of held-out images. FID needs more of them, and of held-out images, than its features have dimensions; KID does not."""
    num_inference_steps: int = 25
    """DDIM steps per image."""
    guidance_scale: float = 1.0
    """Classifier-free guidance; 1 is none."""
    batch_size: int = 50
    """Images generated at once. The result does not depend on it."""
    features: list[str] = field(default_factory=lambda: ["tiny"])
    """Networks that images are compared by, as in '[dinov2, clip]'; 'tiny' is for the bundled model only. docs/quality.md lists them and says where weights come from."""
    clip_score_model: Optional[str] = None
    """Also measure how well images go with their captions (CLIP score): a CLIP model, such as openai/clip-vit-large-patch14, or its folder. Default: not measured."""
    allow_download: Optional[bool] = None
    """Fetch from the hub what is not in its local cache: the networks of --features and --clip_score_model, the base model of an adapter made elsewhere."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return [
            *subject_problems(self, self.output_dir),
            *at_least(self, ("num_images",), 20),
            *at_least(self, ("num_inference_steps", "batch_size", "guidance_scale"), 1),
            *features_problems(self.features),
        ]


def feature_source(feature: str) -> tuple[str, str]:
    """What an item of ``--features`` says: its name, and where its weights come from."""
    name, _, source = feature.partition("=")
    return name, source or FEATURES[name]


def features_problems(features: list[str]) -> list[str]:
    """What is wrong with ``--features``, one line each."""
    names = [feature.partition("=")[0] for feature in features]
    return [
        *(p for feature in features for p in if_any(_feature_problem(feature))),
        *([] if features else [f"--features got none; allowed: {', '.join(FEATURES)}"]),
        *(f"--features got '{name}' twice" for name in dict.fromkeys(names) if names.count(name) > 1),
    ]


def _feature_problem(feature: str) -> str | None:
    name, equals, source = feature.partition("=")
    if problem := unknown(FEATURES, name, "features"):
        return problem
    message = f"--features got '{feature}'"
    if name == "tiny":
        return f"{message}; 'tiny' comes with smplora: leave out what follows it" if equals else None
    if equals and not source:
        return f"{message}; nothing follows the ="
    if not name.startswith("inception"):
        return None
    if not source:
        return f"{message} without weights; give {name}=FILE{WITH_WEIGHTS}, docs/quality.md says where to get it"
    if Path(source).suffix == WITH_WEIGHTS and not Path(source).is_file():
        return f"{message}; there is no such file, docs/quality.md says where to get it"
    return None
