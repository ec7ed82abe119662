"""Data sets as sources: images with class masks, accessed by index."""
