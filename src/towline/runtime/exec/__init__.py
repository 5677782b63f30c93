"""Further commands inside running attempts: how each runtime is entered, and how what they start is ended."""
