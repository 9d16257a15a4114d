"""The costs of the modules as ratios, see `run`."""
