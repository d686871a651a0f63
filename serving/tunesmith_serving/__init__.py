"""The Ray Serve wing: a fine-tuned run becomes a service."""
