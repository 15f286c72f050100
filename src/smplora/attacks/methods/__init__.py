"""One file an attack; methods take plain arguments. To add one, add a file and a line in config/catalogue/attacks.py, and
its name to a tier."""
