"""Options of reproducing the paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Optional

from smplora.config.catalogue.paper_data_sets import SUBSETS
from smplora.config.catalogue.paper_targets import FAMILIES, TARGETS, expand
from smplora.config.checks import at_least, existing_folder, with_sizes
from smplora.config.data import CacheOptions, cache_problems
from smplora.config.evaluate import features_problems
from smplora.core.errors import nearest

OF_SD15 = ("data_dir", "datasets", "pretrained_model_name_or_path", "features", "allow_download")
PAPERS_NAMES = tuple(subset.title for subset in SUBSETS.values())


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig(CacheOptions):
    """Compute tables and figures of the paper again, and put the paper's numbers and these on one page. Run the same command again to resume, or with other names to add to the page."""

    targets: list[str] = field(default_factory=list)
    """Which: 'all', or names such as table_1, table_6, figure_1 (its four panels), figure_3."""
    scale: Literal["tiny", "sd15"] = "tiny"
    """'tiny': the bundled model, digits for images, minutes on a laptop. 'sd15': the paper's settings; Stable Diffusion 1.5, its data sets in --data_dir, GPU days."""
    output_dir: str = "runs/reproduce"
    """Everything goes here: index.html, one JSON file a table or figure, the runs."""
    seeds: Optional[list[int]] = None
    """Seeds of training and split; several give mean and standard error, as the paper prints. Default: one; three at scale sd15."""
    data_dir: Optional[str] = None
    """At scale sd15: a folder with one folder of captioned images for each data set (pokemon, celeba_small, ...), as 'smplora dataset' makes them. Default: data."""
    datasets: Optional[dict[str, str]] = None
    """At scale sd15: data sets of the datasets library in place of folders, as in '{Pokemon: HUB_ID, CelebA_Small: FOLDER}', with columns image and text."""
    pretrained_model_name_or_path: Optional[str] = None
    """At scale sd15: the base model. Default: the paper's, stable-diffusion-v1-5/stable-diffusion-v1-5."""
    features: Optional[list[str]] = None
    """At scale sd15: networks for FID and KID, as for 'smplora evaluate'; the first one's are shown. Default: dinov2; the paper's is 'inception-768=FILE.safetensors'."""
    allow_download: bool = False
    """At scale sd15: fetch what is not in the local hub cache: the base model, the networks of --features, the image encoder of Table 11, hub ids of --datasets."""
    quick: bool = False
    """At scale tiny: a few steps on a few images, each kind of training once, to see that everything works. The numbers mean nothing."""
    dry_run: bool = False
    """Say what would be trained and measured, and about how long it would take, and stop."""
    device: str = "auto"
    """Where to compute: 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'."""
    workers: Optional[int] = None
    """Processes side by side. Default: one per processor core, at most 3; 1 on a GPU."""
    json: bool = False
    """Print the path of the page and of each JSON file as JSON on standard output."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        known = (*FAMILIES, *TARGETS)
        allowed = ", ".join(known)
        unknown = [name for name in self.targets if name not in known]
        foreign = [f"--{name}" for name in OF_SD15 if getattr(self, name)]
        return [
            *([] if self.targets else [f"--targets is missing: name tables and figures; allowed: {allowed}"]),
            *(f"--targets got '{name}'{nearest(name, known)}; allowed: {allowed}" for name in unknown),
            *([f"{', '.join(foreign)}: of --scale sd15; leave out"] if foreign and self.scale == "tiny" else []),
            *(["--quick is of --scale tiny; leave it out"] if self.quick and self.scale != "tiny" else []),
            *(["--seeds got none; give one or more, as in '[0, 1, 2]'"] if self.seeds == [] else []),
            *(
                [f"--seeds got {self.seeds}; allowed: different whole numbers, 0 or more"]
                if self.seeds and (min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds))
                else []
            ),
            *(
                f"--datasets got '{name}'{nearest(name, PAPERS_NAMES)}; allowed: {', '.join(PAPERS_NAMES)}"
                for name in self.datasets or ()
                if name not in PAPERS_NAMES
            ),
            *([] if self.features is None else features_problems(self.features)),
            *existing_folder(self.data_dir, "data_dir"),
            *cache_problems(self, self.data_dir),
            *at_least(self, ("workers",), 1),
        ]

    @property
    def chosen_targets(self) -> list[str]:
        """Each once, in the paper's order."""
        return expand(self.targets)

    @property
    def chosen_seeds(self) -> list[int]:
        """``--seeds``, or what is usual for ``--scale``."""
        return self.seeds or ([0, 1, 2] if self.scale == "sd15" else [0])
