"""How an adapter is attacked. One file per attack; to add one, add a file and a line here, and its name to a tier."""

ATTACKS = {
    "error_map": "smplora.attacks.methods.error_map:ErrorMapAttack",
    "loss": "smplora.attacks.methods.loss:LossAttack",
    "calibrated_loss": "smplora.attacks.methods.calibrated_loss:CalibratedLossAttack",
    "loss_vector": "smplora.attacks.methods.loss_vector:LossVectorAttack",
    "loss_two_sided": "smplora.attacks.methods.two_sided:TwoSidedLossAttack",
    "calibrated_two_sided": "smplora.attacks.methods.two_sided:TwoSidedCalibratedLossAttack",
    "loss_single": "smplora.attacks.methods.loss_single:SingleLossAttack",
    "secmi": "smplora.attacks.methods.secmi:SecMIAttack",
    "secmi_network": "smplora.attacks.methods.secmi:SecMINetworkAttack",
    "pia": "smplora.attacks.methods.pia:PIAAttack",
    "pian": "smplora.attacks.methods.pia:PIANAttack",
    "pfami": "smplora.attacks.methods.pfami:PFAMIAttack",
    "pfami_calibrated": "smplora.attacks.methods.pfami:CalibratedPFAMIAttack",
    "pfami_network": "smplora.attacks.methods.pfami:PFAMINetworkAttack",
    "sima": "smplora.attacks.methods.sima:SimAAttack",
    "sima_mc": "smplora.attacks.methods.sima:SimAMonteCarloAttack",
    "sima_mc_calibrated": "smplora.attacks.methods.sima:CalibratedSimAMonteCarloAttack",
    "clid": "smplora.attacks.methods.clid:CLiDAttack",
    "clid_vector": "smplora.attacks.methods.clid:CLiDVectorAttack",
    "clid_fixed_caption": "smplora.attacks.methods.clid:CLiDFixedCaptionAttack",
    "clid_other_caption": "smplora.attacks.methods.clid:CLiDOtherCaptionAttack",
    "rediffuse": "smplora.attacks.methods.rediffuse:ReDiffuseAttack",
    "rediffuse_images": "smplora.attacks.methods.rediffuse:ReDiffuseImagesAttack",
    "ensemble": "smplora.attacks.methods.ensemble:EnsembleAttack",
    "gsa1": "smplora.attacks.methods.gsa:GSA1Attack",
    "gsa2": "smplora.attacks.methods.gsa:GSA2Attack",
    "gsa1_base": "smplora.attacks.methods.gsa:GSA1BaseAttack",
    "gsa2_base": "smplora.attacks.methods.gsa:GSA2BaseAttack",
    "gradient_alignment": "smplora.attacks.methods.gradient_alignment:GradientAlignmentAttack",
    "self_influence": "smplora.attacks.methods.self_influence:SelfInfluenceAttack",
    "proxy": "smplora.attacks.methods.proxy:ProxyAttack",
    "proxy_calibrated": "smplora.attacks.methods.proxy:CalibratedProxyAttack",
    "error_map_single": "smplora.attacks.methods.error_map:SingleErrorMapAttack",
    "error_map_timestep": "smplora.attacks.methods.error_map:TimestepErrorMapAttack",
    "noise_probe": "smplora.attacks.methods.noise_probe:NoiseProbeAttack",
    "reconstruction": "smplora.attacks.methods.reconstruction:ReconstructionAttack",
    "reconstruction_ratio": "smplora.attacks.methods.reconstruction:ReconstructionRatioAttack",
    "semantic_distance": "smplora.attacks.methods.semantic_distance:SemanticDistanceAttack",
    "distribution": "smplora.attacks.methods.distribution:DistributionAttack",
    "quantile": "smplora.attacks.methods.quantile:QuantileAttack",
    "lira": "smplora.attacks.methods.lira:LiRAAttack",
    "lira_offline": "smplora.attacks.methods.lira:OfflineLiRAAttack",
    "rmia": "smplora.attacks.methods.rmia:RMIAAttack",
    "gsa1_shadows": "smplora.attacks.methods.gsa_shadows:GSA1ShadowsAttack",
    "gsa2_shadows": "smplora.attacks.methods.gsa_shadows:GSA2ShadowsAttack",
}

LOW_PASS = "+low_pass"  # behind a name: the same attack on low frequencies (low_pass.py)
ERROR_BASED = ("error_map", "error_map_single", "error_map_timestep", "loss", "loss_vector", "loss_two_sided",
               "calibrated_loss", "calibrated_two_sided", "loss_single", "secmi", "secmi_network", "pia", "pian",
               "pfami", "pfami_calibrated", "pfami_network", "sima", "sima_mc", "sima_mc_calibrated", "clid", "clid_vector", "clid_fixed_caption", "clid_other_caption")  # fmt: skip

SHADOW = ("lira", "lira_offline", "rmia", "gsa1_shadows", "gsa2_shadows")  # need shadow adapters (--shadows)
SHADOW_OF = {"quick": SHADOW[:3], "standard": SHADOW, "strong": SHADOW}  # run where there are some; gsa needs XGBoost
# signals that they can compare: every number of one is higher for members
SHADOW_SIGNALS = ("calibrated_loss", "loss", "loss_single", "secmi", "pia", "pian", "sima", "pfami", "clid",
                  "gradient_alignment", "noise_probe", "rediffuse", "reconstruction")  # fmt: skip

QUICK = ("error_map", "loss", "calibrated_loss", "sima")
STANDARD = (*QUICK, "loss_vector", "loss_two_sided", "calibrated_two_sided", "proxy", "proxy_calibrated", "loss_single",
            "secmi", "pia", "pian", "pfami", "pfami_calibrated", "sima_mc", "sima_mc_calibrated", "clid", "clid_vector",
            "clid_fixed_caption", "clid_other_caption", "rediffuse", "rediffuse_images", "ensemble", "gsa1", "gsa2", "gradient_alignment",
            "self_influence")  # fmt: skip
WITH_ENCODER = ("reconstruction", "reconstruction_ratio", "semantic_distance", "distribution")  # of --attack_encoder
# these first: an encoder that does not suit the images is said at once
STRONG = (*WITH_ENCODER, *STANDARD, "error_map_single", "error_map_timestep", "secmi_network", "pfami_network",
          "gsa1_base", "gsa2_base", "noise_probe", "quantile", "calibrated_loss+low_pass", "secmi+low_pass",
          "pia+low_pass")  # fmt: skip
TIERS = {"quick": QUICK, "standard": STANDARD, "strong": STRONG}

# the attack that looks at the base model where this one looks at the adapted one; those that compare the two, vary
# images at length or are controls themselves have none but the loss
ON_BASE = {
    "error_map": "error_map", "error_map_single": "error_map", "error_map_timestep": "error_map",
    "loss_single": "loss_single", "secmi": "secmi", "secmi_network": "secmi", "pia": "pia", "pian": "pian",
    "pfami": "pfami", "pfami_calibrated": "pfami", "pfami_network": "pfami", "sima": "sima", "sima_mc": "sima",
    "clid": "clid", "clid_vector": "clid",
    "gsa1": "gsa1_base", "gsa1_base": "gsa1_base", "gsa2": "gsa2_base", "gsa2_base": "gsa2_base",
    "gradient_alignment": "gsa1_base", "self_influence": "gsa1_base",
}  # fmt: skip

# how often the attacks of a tier look, where it is not said by an option
COUNTS = {
    "quick": {"noise_pairs": 2, "error_map_draws": 10, "pfami_crops": 1, "variations": 10},
    "standard": {"noise_pairs": 2, "error_map_draws": 10, "pfami_crops": 1, "variations": 10},
    "strong": {"noise_pairs": 4, "error_map_draws": 20, "pfami_crops": 10, "variations": 10},
}
