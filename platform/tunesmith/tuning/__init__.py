"""The search for hyperparameters.

What to try next (``sampling``, ``population``) and whether a trial goes on (``asha``) are pure functions of the trials so far;
``search`` asks them and keeps the ledger; ``engine`` runs it on Ray Tune; ``trainable`` is what a trial does in its process.
"""
