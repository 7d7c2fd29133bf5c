"""Tests that need a GPU. A package, so that its modules may have names of other folders' modules."""
