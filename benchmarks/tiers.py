"""Whether adapters get the same light from every tier.

    python benchmarks/tiers.py --runs DIR/lora DIR/smp_lora .. [--tiers quick standard] -> benchmarks/results/tiers.json
    python benchmarks/tiers.py --runs DIR/lora .. --tiers strong --shadows 4

Adapters and tiers that are not named keep what was measured before. ``--shadows`` is of the strong tier alone.

DIR is that of `smplora quickstart --output_dir DIR`. Each adapter is audited with each of `--tiers`, otherwise alike:
verdict, the strongest attack on both groups, and every attack's AUC and corrected p on test members.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from common import command, parser, write_result
from smplora.audit.audit import audit
from smplora.config.audit import AuditConfig
from smplora.core.reading import read_json
from smplora.experiments.tasks import BARE_TRAINING
from smplora.results.attack import GROUPS
from smplora.results.audit import Audit


def line(found: Audit) -> dict[str, Any]:
    """What an audit came to."""
    return {
        "level": found.verdict.level,
        "sentence": found.verdict.sentence,
        "strongest": {
            group: {
                "attack": best.attack, "auc": round(best.auc.value, 4), "p_corrected": best.p_corrected,
                "smallest_p_corrected": best.smallest_p_corrected,
            }
            for group in GROUPS if (best := found.strongest[group])
        },
        "test": {
            attack.name: {
                "auc": round(attack.test.auc.value, 4),
                "p_corrected": attack.test.p_value.corrected if attack.test.p_value else None,
            }
            for attack in found.attacks
        },
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Audit and write."""
    options = parser(__file__, __doc__, "audit")
    options.add_argument("--runs", nargs="+", required=True)
    options.add_argument("--tiers", nargs="+", default=["quick", "standard"])
    options.add_argument("--shadows", type=int)
    args = options.parse_args(arguments)
    path = args.results / "tiers.json"
    record: dict[str, Any] = read_json(path) if path.exists() else {"commands": [], "adapters": {}}
    names = {run: "/".join(Path(run).parts[-3:]) if "checkpoints" in run else Path(run).name for run in args.runs}
    written = (
        f"{command(options, args)} --runs {' '.join(f'DIR/{name}' for name in names.values())}"  # DIR says nothing
    )
    for run, name in names.items():
        for tier in args.tiers:
            with tempfile.TemporaryDirectory() as folder:
                settings: dict[str, Any] = {"device": "cpu", **args.audit}
                settings |= {"shadows": args.shadows} if tier == "strong" and args.shadows is not None else {}
                config = AuditConfig(adapter=run, tier=tier, output_dir=f"{folder}/audit", **settings)
                record["adapters"].setdefault(name, {})[tier] = line(audit(config, BARE_TRAINING))
        record["commands"] = list(dict.fromkeys([*record["commands"], written]))
        write_result(args.results, "tiers", record, show=False)


if __name__ == "__main__":
    main()
