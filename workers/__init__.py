"""Queue to work: the Celery app, its tasks, and the process that owns the model."""
