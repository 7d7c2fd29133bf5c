"""Tests that need a GPU; a package, so that its modules may be called like those of the folder above."""
