"""The report of an evaluation: a page for people, a model card, and the words and figures they share."""
