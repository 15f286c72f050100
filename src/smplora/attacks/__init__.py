"""How an adapter is attacked. One file per attack; to add one, add a file and a line here."""

ATTACKS = {
    "error_map": "smplora.attacks.error_map:ErrorMapAttack",
    "loss": "smplora.attacks.loss:LossAttack",
    "calibrated_loss": "smplora.attacks.calibrated_loss:CalibratedLossAttack",
}
