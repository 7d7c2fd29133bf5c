"""Tests that need a GPU; a package, so that its modules may be named like those elsewhere."""
