"""One file a table or figure of the paper: which runs it needs, which numbers it shows. Imports what
experiments imports."""
