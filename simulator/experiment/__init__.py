"""The keys a user writes, typed; no files are read here."""
