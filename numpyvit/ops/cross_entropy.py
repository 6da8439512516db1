"""Cross-entropy of logits against labels or soft targets, with label smoothing."""
import numpy as np


def cross_entropy_forward(logits, targets, label_smoothing=0.0):
    """The mean over the batch of −Σₖ tₖ log pₖ.

        log p = logits − max − log Σₖ exp(logits − max),   t = (1 − s) · target + s / K,   loss = −(1/B) Σ t ⊙ log p

    logits (B, K)   targets: labels (B,) of integers, or soft targets (B, K) whose rows sum to 1 (mixup)   →   loss ()
    A class whose logit is −inf, as a masked class has, counts only where its target is above 0.   cache: p and t.
    Raises ValueError for targets of another shape, and for s outside 0 to 1.
    Szegedy et al. 2016, section 7 (label smoothing s).  torch.nn.functional.cross_entropy
    """
    B, K = logits.shape
    if np.shape(targets) not in ((B,), (B, K)):
        raise ValueError(f"targets: expected labels ({B},) or soft targets ({B}, {K}), got shape {np.shape(targets)}")
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))    # (B, K)
    t = soft_targets(targets, K, logits.dtype, label_smoothing)
    loss = -(t * np.where(t == 0, 0, log_p)).sum() / B                       # 0 · log 0 = 0
    return loss, (np.exp(log_p), t)


def cross_entropy_backward(dloss, cache):
    """dlogits = (p · Σₖ tₖ − t) · dloss / B,   and Σₖ tₖ = 1"""
    p, t = cache
    return (p * t.sum(axis=-1, keepdims=True) - t) * (dloss / len(p))


def soft_targets(targets, K, dtype, label_smoothing=0.0):
    """Labels (B,) or soft targets (B, K) → t (B, K) = (1 − s) · target + s / K"""
    targets = np.asarray(targets)
    if targets.ndim == 1:
        if targets.dtype.kind not in "iu" or (targets.size and not (0 <= targets.min() and targets.max() < K)):
            got = f"{targets.dtype} {targets[:5].tolist()}"
            raise ValueError(f"targets: expected whole numbers from 0 to {K - 1}, got {got}")
        targets = np.eye(K, dtype=dtype)[targets]                            # one-hot rows
    s = float(label_smoothing)
    if not 0 <= s <= 1:
        raise ValueError(f"label_smoothing: expected a number from 0 to 1, got {label_smoothing}")
    return (targets * (1 - s) + s / K).astype(dtype, copy=False)
