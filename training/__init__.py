"""Corrections to adapter: harvest, fine-tuning, promotion."""
