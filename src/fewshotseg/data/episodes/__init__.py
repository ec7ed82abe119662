"""Draws episodes from a source, or reads them from a list."""
