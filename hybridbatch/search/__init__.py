"""Finding passages: stored embeddings, exact search, FAISS, BM25."""
