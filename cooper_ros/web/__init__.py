"""A local web page for correcting recorded questions."""
