"""What the modules cost, as ratios: see run."""
