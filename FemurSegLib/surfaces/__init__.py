"""What surface.py and `femurseg surface` are made of: the field, cortex and canal as a pair, quality, files."""
