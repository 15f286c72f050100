"""The commands: their options, and what does them."""

from __future__ import annotations

from dataclasses import dataclass

from smplora.config.audit import AuditConfig, ReportConfig
from smplora.config.caption import CaptionConfig
from smplora.config.data import CacheConfig, SplitConfig
from smplora.config.dataset import DatasetConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.properties import PropertiesConfig
from smplora.config.publish import ExportConfig, PushConfig
from smplora.config.quickstart import QuickstartConfig
from smplora.config.reproduce import ReproduceConfig
from smplora.config.sweep import SweepConfig
from smplora.config.train import TrainConfig
from smplora.config.verify import VerifyConfig


@dataclass(frozen=True)
class Verb:
    """A command: its options, and the function that does it ("module:function", imported when it runs)."""

    options: type
    run: str
    example: str
    slow: bool = False  # says so before the heavy imports, also where nobody watches
    positional: str | None = None  # the option whose value (a list: whose values) may stand without its flag
    asks_for_base: bool = False  # one's own images are not adapted to the bundled model unless its name is given


VERBS = {
    "quickstart": Verb(
        QuickstartConfig,
        "smplora.experiments.quickstart:quickstart",
        "smplora quickstart --train_data_dir my_images",
        slow=True,
    ),
    "split": Verb(
        SplitConfig, "smplora.data.split:split", "smplora split --train_data_dir my_images --output_dir runs/split"
    ),
    "train": Verb(
        TrainConfig,
        "smplora.experiments.training:train_command",
        "smplora train --train_data_dir my_images --pretrained_model_name_or_path sd15 --output_dir runs/lora",
        asks_for_base=True,
    ),
    "audit": Verb(
        AuditConfig, "smplora.experiments.tasks:audit_command", "smplora audit runs/smp_lora", positional="adapter"
    ),
    "properties": Verb(
        PropertiesConfig,
        "smplora.experiments.tasks:properties_command",
        "smplora properties runs/smp_lora --attribute label --attribute_value five",
        positional="adapter",
    ),
    "evaluate": Verb(
        EvaluateConfig, "smplora.experiments.tasks:evaluate", "smplora evaluate runs/smp_lora", positional="adapter"
    ),
    "report": Verb(
        ReportConfig,
        "smplora.experiments.report_command:report_command",
        "smplora report runs/lora runs/smp_lora --output report.html",
        positional="runs",
    ),
    "export": Verb(
        ExportConfig,
        "smplora.publish.publish:export",
        "smplora export runs/smp_lora --output_dir published",
        positional="adapter",
    ),
    "push": Verb(
        PushConfig,
        "smplora.publish.publish:push",
        "smplora push runs/smp_lora --repo_id user/my-adapter",
        positional="adapter",
    ),
    "verify": Verb(
        VerifyConfig,
        "smplora.publish.verify:verify",
        "smplora verify certificate.html --adapter lora.safetensors",
        positional="certificate",
    ),
    "caption": Verb(
        CaptionConfig, "smplora.data.captioning:caption", "smplora caption my_images", positional="train_data_dir"
    ),
    "sweep": Verb(
        SweepConfig,
        "smplora.experiments.sweep.command:sweep",
        "smplora sweep --train_data_dir my_images --pretrained_model_name_or_path sd15 --grid '{rank: [4, 16]}'",
        slow=True,
        asks_for_base=True,
    ),
    "dataset": Verb(
        DatasetConfig,
        "smplora.data.paper.build:dataset",
        "smplora dataset celeba_small --source originals/celeba",
        positional="name",
    ),
    "reproduce": Verb(
        ReproduceConfig,
        "smplora.experiments.reproduce.command:reproduce",
        "smplora reproduce table_1 figure_3",
        slow=True,
        positional="targets",
    ),
    "cache": Verb(CacheConfig, "smplora.cli.cache:cache", "smplora cache --clear"),
}
