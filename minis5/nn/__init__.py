"""Layers and memory cores: every forward above its backward, written by hand."""
