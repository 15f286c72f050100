"""Options of writing captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from smplora.config.checks import at_least, existing_folder, needed, with_sizes


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Write a caption for every image that has none, with BLIP, as the paper did for data sets without captions. What is there is never changed."""

    train_data_dir: Optional[str] = None
    """Folder of images."""
    caption_model: str = "Salesforce/blip-image-captioning-large"
    """A BLIP captioning model in safetensors: a local folder, or a model id of the hub (in the local cache, or with --allow_download)."""
    allow_download: bool = False
    """Fetch a model id that is not in the local hub cache from the hub. Without it nothing is downloaded."""
    caption_format: Literal["txt", "metadata"] = "txt"
    """Where captions are written: 'txt', a file beside each image; 'metadata', the folder's metadata.jsonl."""
    caption_column: str = "text"
    """Key of the caption in metadata.jsonl."""
    caption_prefix: str = ""
    """What every caption written begins with, such as 'a photo of'; the model goes on from there."""
    max_new_tokens: int = 50
    """Longest caption, in tokens."""
    num_beams: int = 3
    """Beams of the search; 1 takes the likeliest word each time."""
    batch_size: int = 8
    """Images at once."""
    device: str = "auto"
    """Where to compute: 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'."""
    json: bool = False
    """Print the result as JSON on standard output."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return [
            *needed(self.train_data_dir, "train_data_dir", "a folder of images"),
            *existing_folder(self.train_data_dir, "train_data_dir"),
            *at_least(self, ("max_new_tokens", "num_beams", "batch_size"), 1),
        ]
