"""What is trained. One file per adaptation method; to add one, add a file and a line here."""

ADAPTATIONS = {"lora": "smplora.adapt.lora:LoRAAdaptation"}
