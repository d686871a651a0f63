"""From files to prepared data: sources, columns, checks, splits, and the memory-mapped features that training reads.

``prepare.py`` is the verb that reads top to bottom; ``prepared.py`` is what everyone else sees of it.
"""
