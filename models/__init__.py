"""Inference: text in, brief out. Knows no database, no queue and no web."""
