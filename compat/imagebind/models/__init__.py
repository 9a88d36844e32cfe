"""The model, and the tokenizer of its texts."""
