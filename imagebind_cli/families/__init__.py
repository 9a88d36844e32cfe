"""One file per family of models: its tensors' names, configs, readers where its preprocessing differs, and `FAMILY`, its entry for the registry."""
