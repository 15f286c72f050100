"""The paper's data sets, drawn from public originals, one file an original. Imports data, config, core."""
