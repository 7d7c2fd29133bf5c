"""Environments that are not written here."""
