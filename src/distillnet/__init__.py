"""Cut a pretrained CNN down to the few classes you need, with no training."""
