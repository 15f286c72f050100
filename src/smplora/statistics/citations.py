"""Where an audit's statistics come from, for its reader."""

from __future__ import annotations

from collections.abc import Mapping

SOURCES = {  # number of an audit -> who says so, and BibTeX
    "fitting on one half, reading on the other": (
        "Chernozhukov et al. 2018",
        """@article{chernozhukov2018double,
  title={Double/Debiased Machine Learning for Treatment and Structural Parameters},
  author={Chernozhukov, Victor and Chetverikov, Denis and Demirer, Mert and Duflo, Esther and Hansen, Christian and Newey, Whitney and Robins, James},
  journal={The Econometrics Journal}, volume={21}, number={1}, pages={C1--C68}, year={2018}}""",
    ),
    "intervals of AUCs": (
        "Newcombe 2006; DeLong et al. 1988",
        """@article{newcombe2006confidence,
  title={Confidence Intervals for an Effect Size Measure Based on the {Mann--Whitney} Statistic. Part 2: Asymptotic Methods and Evaluation},
  author={Newcombe, Robert G.},
  journal={Statistics in Medicine}, volume={25}, number={4}, pages={559--573}, year={2006}}
@article{delong1988comparing,
  title={Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves: A Nonparametric Approach},
  author={DeLong, Elizabeth R. and DeLong, David M. and Clarke-Pearson, Daniel L.},
  journal={Biometrics}, volume={44}, number={3}, pages={837--845}, year={1988}}""",
    ),
    "intervals of rates": (
        "Clopper and Pearson 1934",
        """@article{clopper1934use,
  title={The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial},
  author={Clopper, C. J. and Pearson, E. S.},
  journal={Biometrika}, volume={26}, number={4}, pages={404--413}, year={1934}}""",
    ),
    "true positive rates at low false positive rates": (
        "Carlini et al. 2022",
        """@inproceedings{carlini2022membership,
  title={Membership Inference Attacks From First Principles},
  author={Carlini, Nicholas and Chien, Steve and Nasr, Milad and Song, Shuang and Terzis, Andreas and Tram{\\`e}r, Florian},
  booktitle={IEEE Symposium on Security and Privacy}, year={2022}}""",
    ),
    "p of several attacks together": (
        "Westfall and Young 1993",
        """@book{westfall1993resampling,
  title={Resampling-Based Multiple Testing: Examples and Methods for p-Value Adjustment},
  author={Westfall, Peter H. and Young, S. Stanley}, publisher={Wiley}, year={1993}}""",
    ),
    "weights of several attacks": (
        "Genovese et al. 2006",
        """@article{genovese2006false,
  title={False Discovery Control with p-Value Weighting},
  author={Genovese, Christopher R. and Roeder, Kathryn and Wasserman, Larry},
  journal={Biometrika}, volume={93}, number={3}, pages={509--524}, year={2006}}""",
    ),
    "epsilon": (
        "Jagielski et al. 2020",
        """@inproceedings{jagielski2020auditing,
  title={Auditing Differentially Private Machine Learning: How Private is Private {SGD}?},
  author={Jagielski, Matthew and Ullman, Jonathan and Oprea, Alina},
  booktitle={Advances in Neural Information Processing Systems}, year={2020}}""",
    ),
    "epsilon from one run": (
        "Steinke et al. 2023",
        """@inproceedings{steinke2023privacy,
  title={Privacy Auditing with One (1) Training Run},
  author={Steinke, Thomas and Nasr, Milad and Jagielski, Matthew},
  booktitle={Advances in Neural Information Processing Systems}, year={2023}, note={arXiv 2305.08846}}""",
    ),
    "mu from one run": (
        "Mahloujifar et al. 2024",
        """@article{mahloujifar2024auditing,
  title={Auditing f-Differential Privacy in One Run},
  author={Mahloujifar, Saeed and Melis, Luca and Chaudhuri, Kamalika},
  journal={arXiv preprint arXiv:2410.22235}, year={2024}}""",
    ),
    "the set as a whole": (
        "Maini et al. 2021",
        """@inproceedings{maini2021dataset,
  title={Dataset Inference: Ownership Resolution in Machine Learning},
  author={Maini, Pratyush and Yaghini, Mohammad and Papernot, Nicolas},
  booktitle={International Conference on Learning Representations}, year={2021}}""",
    ),
    "what would have been seen": (
        "Noether 1987",
        """@article{noether1987sample,
  title={Sample Size Determination for Some Common Nonparametric Tests},
  author={Noether, Gottfried E.},
  journal={Journal of the American Statistical Association}, year={1987}}""",
    ),
    "validity gates": (
        "Das et al. 2024",
        """@article{das2024blind,
  title={Blind Baselines Beat Membership Inference Attacks for Foundation Models},
  author={Das, Debeshee and Zhang, Jie and Tram{\\`e}r, Florian},
  journal={arXiv preprint arXiv:2406.16201}, year={2024}}""",
    ),
}
ONE_RUN, GATES = ("epsilon from one run", "mu from one run"), "validity gates"


def methods_used(*, one_run: bool, gates: bool) -> list[Mapping[str, str]]:
    """The "methods" of audit.json: what an audit rests on."""
    left_out = {
        *(() if one_run else ONE_RUN),
        *(() if gates else (GATES,)),
    }
    return [
        {"of": of, "reference": reference, "bibtex": bibtex}
        for of, (reference, bibtex) in SOURCES.items()
        if of not in left_out
    ]
