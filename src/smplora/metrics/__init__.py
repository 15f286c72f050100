"""Statistics of membership inference: how well do scores tell members from non-members, and how sure is that.

Everywhere ``scores`` [n] are finite numbers where *higher means member*, ``is_member`` [n] is boolean, and rates lie
in [0, 1]. Counts are kept as integers until the last division, so that ties and zero variances are exact. Bad input
raises ``ValueError``: scores that are not finite, labels that are not boolean or not [n], a class without samples.
"""

from smplora.metrics.curves import (
    Roc,
    auc,
    best_threshold,
    roc_curve,
)
from smplora.metrics.epsilon import (
    GuessRule,
    best_guess_rule,
    count_guesses,
    epsilon_bound,
    epsilon_ceiling,
    epsilon_threshold,
    one_run_epsilon,
    one_run_p_value,
)
from smplora.metrics.families import (
    FamilyTest,
    family_test,
    low_fpr_p_value,
    simultaneous_level,
)
from smplora.metrics.fronts import (
    mean_interval,
    over_seeds,
    pareto_front,
)
from smplora.metrics.intervals import (
    Interval,
    auc_deviation,
    bootstrap_interval,
    clopper_pearson,
    delong_interval,
)
from smplora.metrics.numbers import (
    REPORTED_FPRS,
    summary,
)
from smplora.metrics.permutation import (
    permutation_p_value,
)
from smplora.metrics.power import (
    dataset_inference_p_value,
    detectable_auc,
    null_standard_error,
)
from smplora.metrics.rates import (
    MIN_FALSE_POSITIVES,
    RateAtFpr,
    RocBand,
    attack_success_rate,
    roc_band,
    tpr_at_fpr,
)
from smplora.metrics.sources import (
    methods_used,
)

__all__ = [
    "MIN_FALSE_POSITIVES",
    "REPORTED_FPRS",
    "FamilyTest",
    "GuessRule",
    "Interval",
    "RateAtFpr",
    "Roc",
    "RocBand",
    "attack_success_rate",
    "auc",
    "auc_deviation",
    "best_guess_rule",
    "best_threshold",
    "bootstrap_interval",
    "clopper_pearson",
    "count_guesses",
    "dataset_inference_p_value",
    "delong_interval",
    "detectable_auc",
    "epsilon_bound",
    "epsilon_ceiling",
    "epsilon_threshold",
    "family_test",
    "low_fpr_p_value",
    "mean_interval",
    "methods_used",
    "null_standard_error",
    "one_run_epsilon",
    "one_run_p_value",
    "over_seeds",
    "pareto_front",
    "permutation_p_value",
    "roc_band",
    "roc_curve",
    "simultaneous_level",
    "summary",
    "tpr_at_fpr",
]
