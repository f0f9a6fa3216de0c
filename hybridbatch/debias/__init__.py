"""Language vectors: the part of an embedding that tells its language, estimated and subtracted."""
