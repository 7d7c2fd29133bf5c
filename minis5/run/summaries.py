"""The commands' names and what each does, for `minis5 --help`. commands.py has their functions.

Tests: tests/run/test_cli.py.
"""

SUMMARIES = {
    "train": "train an agent on an environment",
    "eval": "play fresh episodes with a trained agent",
    "watch": "show an episode of a trained agent, as text or pictures",
    "plot": "draw learning curves of one or more runs",
    "envs": "list minis5's own environments",
    "import-weights": "make an agent of another program's weights",
    "export-weights": "write an agent's weights for another program",
    "completion": "write a script that completes commands with Tab",
    "bench": "measure the speed on this machine",
    "vectors": "write test vectors for any language",
    "verify": "check other code against them",
}
