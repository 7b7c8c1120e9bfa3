"""The shared kernel of briefbox: settings, errors, schemas, tables, store, queue and the command line."""

__version__ = "0.1.0"
