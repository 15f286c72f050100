"""Pages, tables and figures about results. Imports results, statistics, config, core:
it measures nothing."""
