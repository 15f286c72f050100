"""Many trainings, audits and evaluations together: the quickstart, sweeps, the paper. Imports training, audit, quality,
publish, report and everything below."""
