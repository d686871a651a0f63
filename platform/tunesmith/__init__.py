"""Tunesmith: fine-tune a pre-trained model on your labelled data, prove that it is good, and put it to work."""
