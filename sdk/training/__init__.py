"""Training and fine-tuning of SimCC networks: label codecs, losses, augmentation, the trainer."""
