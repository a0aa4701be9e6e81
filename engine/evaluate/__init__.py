"""Loads evaluation rows, compares predictions, measures speed and quality. Runs in the sandbox."""
