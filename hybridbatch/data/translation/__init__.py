"""Machine translation of training rows into languages that their records lack."""
