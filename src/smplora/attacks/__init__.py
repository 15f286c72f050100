"""How an adapter is attacked: the contract, views of a model (the threat models), scorers and how they are fitted. Imports
config, models, statistics, core."""
