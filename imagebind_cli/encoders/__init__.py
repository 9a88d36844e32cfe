"""One file per modality: how its input is read, its stem where `PatchStem` does not fit, and `MODALITY`, its entry for the registry."""
