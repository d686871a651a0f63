"""Training: the loop (``fit.py``), what it stands on, and its start on Ray (``launch.py``)."""
