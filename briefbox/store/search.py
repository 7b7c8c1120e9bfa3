"""Full text."""
