"""What is only there for speed: exact to rounding, asked for by `SCNet.fuse`, and out of the way of the paper's files."""
