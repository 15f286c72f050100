"""Many trainings, audits and evaluations together: the quickstart, sweeps, the paper. Imports training, audit, quality,
report and everything below."""
