"""One run's folder: the only code that knows its files, for reading and for writing. No torch."""
