"""Many settings, each trained, audited and evaluated, in one table and one figure."""
