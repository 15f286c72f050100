"""What an adapter tells of its training set as a whole: how many images it has, and which share of them has a value."""
