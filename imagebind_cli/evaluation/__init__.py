"""Zero-shot and few-shot classification: class names and prompts, prototypes, scores, reports, and the suites the field compares by."""
