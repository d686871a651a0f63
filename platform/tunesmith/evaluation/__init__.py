"""How good a model is: the predictor that answers, and the verdict with its intervals."""
