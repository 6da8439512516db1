"""Random numbers without a generator: pure functions of integers.

    bits = hash_combine(seed, epoch, image, layer, element),     u = uniform(bits) ∈ [0, 1)

Whoever knows the integers gets the same bits, in any order, on any thread, after any restart. There is no generator,
and so no state that could be lost. The mixing function is SplitMix64's finaliser (Steele, Lea, Flood 2014, "Fast
splittable pseudorandom number generators", fig. 16, variant 13 of Stafford).
"""
import numpy as np

GOLDEN_GAMMA = 0x9E3779B97F4A7C15                                            # 2⁶⁴ / golden ratio, odd


def mix(a):
    """SplitMix64's finaliser: a bijection of 64-bit integers whose bits look independent.   (...) → (...) uint64"""
    z = np.atleast_1d(np.asarray(a, dtype=np.uint64))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).reshape(np.shape(a))


def hash_combine(*parts):
    """One 64-bit hash of several integers, which may be arrays that broadcast. Their order matters.   → uint64"""
    state = np.zeros(1, dtype=np.uint64)
    for part in parts:
        part = np.asarray(part)
        if part.dtype != np.uint64:
            part = part.astype(np.int64).astype(np.uint64)                   # negative integers wrap around
        state = mix(state * np.uint64(GOLDEN_GAMMA) + part + np.uint64(1))
    return state.reshape(np.broadcast_shapes(*(np.shape(part) for part in parts)))


def uniform(bits):
    """The upper 53 of 64 bits as a float64 in [0, 1)."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def image_seeds(rng, batch):
    """A 64-bit seed for every image, from an int, a numpy Generator, or the seeds (B,) themselves.   → (B,) uint64"""
    if isinstance(rng, np.random.Generator):
        return rng.integers(0, 2**64, size=batch, dtype=np.uint64)
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and -2**63 <= rng < 2**63:
        return hash_combine(int(rng), np.arange(batch))
    seeds = np.asarray(rng)
    if seeds.dtype != np.uint64 or seeds.shape != (batch,):
        raise ValueError(f"rng: expected an int of at most 64 bits, a numpy Generator or {batch} uint64 seeds, got "
                         f"{type(rng).__name__} of dtype {seeds.dtype} and shape {seeds.shape}")
    return seeds
