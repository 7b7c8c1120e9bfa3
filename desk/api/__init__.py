"""The REST API for programs, under /api/v1: thin routes over briefbox.store, with models of its own."""
