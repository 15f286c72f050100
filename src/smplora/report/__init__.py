"""Pages, tables and figures about results. Imports results, statistics, core: it measures nothing."""
