"""Every read and write of the database, one file per subject."""
