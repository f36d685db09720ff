"""How sharp the minimum is that a run has found: how far the loss rises around its weights."""
