"""Data care: duplicates, contradictions, leaks and likely label errors, looked for between reading rows and splitting them.

``treat.py`` reads top to bottom: what is looked for, found and done. What it finds is plain data, ``manifest["care"]``.

============== ===================================================================================================
``inputs``     all rows of the given splits in one numbering, and what of them is compared
``texts``      near-duplicate texts: MinHash, bands, verified Jaccard similarity
``pictures``   near-duplicate images: perceptual hash, Hamming distance, verified correlation
``groups``     rows that belong together, as codes
``repeats``    duplicates and conflicting labels within a split
``leaks``      rows to judge by that also stand in ``train``
``sides``      rows to judge by that ``data.split.group`` or ``data.split.time`` puts on the side of ``train``
``together``   splits that never part a group
``audit``      likely label errors, from cross-validated predictions
``known``      how many of the rows that the user knows to be bad were found
============== ===================================================================================================
"""
