"""The agent and its trainer."""
