"""The command line: parsing, and commands that compose what the other rooms do. Imports every room below."""
