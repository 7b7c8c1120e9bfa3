"""Sample emails for the demo."""
