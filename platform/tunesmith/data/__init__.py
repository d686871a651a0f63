"""From files to prepared data: sources, columns, checks, splits, and the memory-mapped features that training reads.

``prepare.py`` is the verb that reads top to bottom; :class:`PreparedData` and :class:`Split` are what everyone else sees of it.
"""

from tunesmith.data.prepared import PreparedData, Split

__all__ = ["PreparedData", "Split"]
