"""The one statement of every result: the records of audit.json and quality.json, and how they are read. Imports
core."""
