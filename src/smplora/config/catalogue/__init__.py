"""Which methods there are: name -> "module:Class", imported on use, so that --help stays quick. Imports nothing."""
