"""Training SCNet: recipe, loop, run folder, processes."""
