"""What is only there for speed: exact to rounding, asked for by `SCNet.fuse` or the owner of a model."""
