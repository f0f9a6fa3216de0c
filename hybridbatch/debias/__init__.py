"""Language vectors: what of an embedding tells its language, estimated and taken off."""
