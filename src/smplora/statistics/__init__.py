"""Statistics of membership inference: how well do scores tell members from non-members, and how sure is that.

Everywhere ``scores`` [n] are finite numbers where *higher means member*, ``is_member`` [n] is boolean, and rates lie
in [0, 1]. Counts are kept as integers until the last division, so that ties and zero variances are exact. Bad input
raises ``ValueError``: scores that are not finite, labels that are not boolean or not [n], a class without samples.
Imports core only.
"""
