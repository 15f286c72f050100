"""Networks that look at images and captions: features for FID and KID, encoders that attacks compare images by.
Imports core."""
