"""Search in stores of embeddings, its evaluation, and pages to look at. Never imports torch."""
