"""Learning rates: pure functions of the step. lr(step) is used by update number step, counted from 0."""
import math

from ..errors import UserError

SCHEDULES = ("linear", "cosine", "one_cycle", "constant")


def learning_rate(kind, step, total_steps, peak, warmup=0.1):
    """The learning rate of one step: a linear rise over the first share `warmup` of the steps, then one of

        linear      peak · (1 − t)                                  torch.optim.lr_scheduler.LinearLR(1, 0)
        cosine      peak · (1 + cos πt) / 2                         CosineAnnealingLR
        constant    peak
        one_cycle   cosine arcs from peak / 25 up to peak and down to peak / 250,000    OneCycleLR(pct_start=warmup)

    where t goes from 0 at the end of the rise towards 1 at the end of the run.
    """
    if kind == "one_cycle":
        return one_cycle(step, total_steps, peak, warmup)
    rise = round(warmup * total_steps)
    if step < rise:
        return peak * (step + 1) / rise
    t = (step - rise) / max(total_steps - rise, 1)
    if kind == "linear":
        return peak * (1 - t)
    if kind == "cosine":
        return peak * (1 + math.cos(math.pi * t)) / 2
    if kind == "constant":
        return peak
    raise UserError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {kind!r}")


def one_cycle(step, total_steps, peak, warmup, div_factor=25.0, final_div_factor=1e4):
    """Smith 2018 with cosine arcs, as torch's OneCycleLR: the peak is at step warmup · total_steps − 1."""
    start = peak / div_factor
    top, last = warmup * total_steps - 1, total_steps - 1
    if step <= top and top > 0:
        return cosine_arc(start, peak, step / top)
    return cosine_arc(peak, start / final_div_factor, (step - top) / (last - top) if last > top else 1.0)


def cosine_arc(first, last, t):
    """From first at t = 0 to last at t = 1, along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * t)) / 2
