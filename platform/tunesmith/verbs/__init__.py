"""The verbs, one file each: ``tunesmith VERB`` runs the click command ``command`` of the module that its entry point names.

The first line of a verb's module docstring is its line in ``tunesmith --help``.
"""
