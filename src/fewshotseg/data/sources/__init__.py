"""Data sets as sources: images with class masks, addressed by position."""
