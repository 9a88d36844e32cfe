"""Score separated sounds by SI-SDR, and by SDR, SIR and SAR of BSS-eval.

SI-SDR alone is reported as an improvement over the mixture: a fixed share of it, such as the mixture at half its level, gains nothing. With the
plain SNR, halving a mixture of two equally loud sounds gains 3 dB (Le Roux et al., ICASSP 2019, arXiv:1811.02508).
"""

from __future__ import annotations

import warnings

import numpy as np


def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Compute the scale-invariant signal-to-distortion ratio in dB, (…).

    The reference is scaled so that what the estimate differs by is orthogonal to it. An exact copy has infinity, silence minus infinity.

    Args:
        estimate, reference: waveforms (…, samples).
    Raises:
        ValueError: a reference is silent, to which no estimate can be compared.
    """
    energy = (reference**2).sum(axis=-1)
    if not energy.all():
        raise ValueError("a reference is silent")
    target = ((estimate * reference).sum(axis=-1) / energy)[..., None] * reference
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 10 * np.log10((target**2).sum(axis=-1) / ((estimate - target) ** 2).sum(axis=-1))
    return np.where(np.isnan(ratio), -np.inf, ratio)  # 0 / 0: silence


def improvement(estimate: np.ndarray, mixture: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Compute how much higher the SI-SDR of an estimate is than the mixture's, in dB; waveforms (…, samples)."""
    return si_sdr(estimate, reference) - si_sdr(mixture, reference)


def level(sound: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Compute how loud a sound is compared to another, in dB, at least -100; waveforms (…, samples)."""
    ratio = (sound**2).sum(axis=-1) / np.maximum((reference**2).sum(axis=-1), 1e-20)
    return 10 * np.log10(np.maximum(ratio, 1e-10))


def bss_eval(estimate: np.ndarray, mixture: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Compute SDR, SIR and SAR of BSS-eval in dB, as mir_eval does (filters of 512 taps); waveforms (samples,).

    What is left of the mixture is the estimate of the other sound, and what the mixture has beside the reference its reference.
    """
    from mir_eval.separation import bss_eval_sources  # one of the recipe's requirements, and slow

    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # it leaves mir_eval with version 0.9
        references, estimates = np.stack([reference, mixture - reference]), np.stack([estimate, mixture - estimate])
        sdr, sir, sar, _ = bss_eval_sources(references, estimates, compute_permutation=False)
    return float(sdr[0]), float(sir[0]), float(sar[0])
