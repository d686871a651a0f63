"""What several tests share: tiny models and splits in memory."""
