"""Training on pairs of modalities: data and augmentation, contrastive loss, the loop, and what a run leaves behind."""
