"""From a name to a folder of results: the command line and what it runs."""
