"""Statistics of membership inference: how well do scores tell members from non-members, and how sure is that.

Everywhere ``scores`` [n] are finite numbers where *higher means member*, ``is_member`` [n] is boolean, and rates lie
in [0, 1]. Counts are kept as integers until the last division, so that ties and zero variances are exact. Bad input
raises ``ValueError``: scores that are not finite, labels that are not boolean or not [n], a class without samples.
"""

from smplora.metrics.curves import Roc, auc, best_threshold, roc_curve
from smplora.metrics.intervals import Interval, auc_deviation, bootstrap_interval, clopper_pearson, delong_interval
from smplora.metrics.numbers import REPORTED_FPRS, summary
from smplora.metrics.permutation import permutation_p_value
from smplora.metrics.rates import MIN_FALSE_POSITIVES, RateAtFpr, attack_success_rate, tpr_at_fpr

__all__ = [
    "MIN_FALSE_POSITIVES",
    "REPORTED_FPRS",
    "Interval",
    "RateAtFpr",
    "Roc",
    "attack_success_rate",
    "auc",
    "auc_deviation",
    "best_threshold",
    "bootstrap_interval",
    "clopper_pearson",
    "delong_interval",
    "permutation_p_value",
    "roc_curve",
    "summary",
    "tpr_at_fpr",
]
