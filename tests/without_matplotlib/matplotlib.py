"""In PYTHONPATH, this folder hides matplotlib: importing it and one picture take 1.8 s of CPU."""

raise ImportError("matplotlib is hidden from this test")
