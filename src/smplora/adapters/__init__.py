"""What is trained and how it is handed out, one file an adaptation method. Imports models, core; methods take
plain arguments. To add a method, add a file and a line in config/catalogue/adaptations.py."""
