"""The Flower wing: fine-tuning across sites whose data never moves."""
