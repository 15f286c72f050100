"""Many settings, each trained and audited, in one table and one figure. Imports what experiments imports."""
