"""exp, and Φ of the normal distribution, as arithmetic without branches, which LLVM turns into vector instructions.

float32 uses the polynomials below. float64 uses the C library, which is exact but takes one number at a time. NaN stays
NaN.
"""
import math

import numpy as np
from numba import njit
from numba.extending import overload

f32 = np.float32

# How the kernels are compiled. Sums may be reordered and fused, for only then are they vectorised. NaN and infinity are
# kept: neither nnan nor ninf is allowed, and 1/0 is inf as in NumPy.
LOOP = dict(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})
EXACT = dict(nogil=True, cache=True, error_model="numpy", forceinline=True)   # no reordering, or errors would grow

LOG2E = f32(1.4426950408889634)
LN2_HIGH, LN2_LOW = f32(0.693359375), f32(-2.1219444400546905e-4)            # ln 2 = high + low; n·high is exact
LOWEST, HIGHEST = f32(-87.33654), f32(88.72283)                              # exp is normal and finite in between
# exp(r) on |r| ≤ ½ ln 2: 1 + r + r²·(E0 + E1 r + …), Chebyshev fit, error 1.2e-8 before rounding
EXP = tuple(f32(c) for c in (0.5000000015162074, 0.16666569602844866, 0.04166644833202757, 0.008364383389798771,
                               0.0013935454539898433))


@njit(**EXACT)
def exp_f32(x):
    """exp(x) = 2ⁿ · exp(r),  n = round(x · log₂e),  r = x − n ln 2.   float32; 0 below −87.34 and inf above 88.72"""
    a = LOWEST if x < LOWEST else x
    a = HIGHEST if a > HIGHEST else a
    n = np.floor(a * LOG2E + f32(0.5))
    r = (a - n * LN2_HIGH) - n * LN2_LOW
    p = EXP[4]
    p = p * r + EXP[3]
    p = p * r + EXP[2]
    p = p * r + EXP[1]
    p = p * r + EXP[0]
    y = p * (r * r) + r + f32(1)
    top = n > f32(127)                                                       # 2¹²⁸ has no exponent: 2 · 2¹²⁷
    n = f32(127) if top else n
    y = y * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(f32)
    y = y * f32(2) if top else y
    y = f32(0) if x < LOWEST else y
    return f32(np.inf) if x > HIGHEST else y


def exp(x):
    """exp of a float32 or float64 scalar inside a kernel."""
    return math.exp(x)


@overload(exp, inline="always")
def typed_exp(x):
    """exp of the type of x, which Numba asks for when it compiles a kernel."""
    if x.bitwidth == 32:
        return lambda x: exp_f32(x)
    return lambda x: math.exp(x)


# (1 − Φ(a)) · exp(a²/2) / t as a polynomial in t = 1/(1 + 0.35 a) on [0, 1]: Chebyshev fit, 1.3e-9 before rounding
MILLS = tuple(f32(c) for c in (0.13962980084055374, 0.13962903974182014, 0.12256039581425325, 0.08767899812008496,
                               0.04917462005895562, -0.03153924112298384, 0.07729337449415427, -0.2375735998230057,
                               0.24644187508160695, -0.11371892656832355, 0.02042366462144757))
SQRT_HALF, INV_SQRT_2PI = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)


@njit(**EXACT)
def normal_f32(x):
    """Φ(x), φ(x) of the standard normal distribution, float32. Both need exp(−x²/2), which is computed once."""
    a = abs(x)
    e = exp_f32(f32(-0.5) * a * a)
    t = f32(1) / (f32(1) + f32(0.35) * a)
    p = MILLS[10]
    p = p * t + MILLS[9]
    p = p * t + MILLS[8]
    p = p * t + MILLS[7]
    p = p * t + MILLS[6]
    p = p * t + MILLS[5]
    p = p * t + MILLS[4]
    p = p * t + MILLS[3]
    p = p * t + MILLS[2]
    p = p * t + MILLS[1]
    p = p * t + MILLS[0]
    tail = e * t * p                                                         # 1 − Φ(a)
    return (tail if x < f32(0) else f32(1) - tail), e * f32(INV_SQRT_2PI)


@njit(**EXACT)
def normal_f64(x):
    """Φ(x), φ(x) of the standard normal distribution, float64, by the C library."""
    return 0.5 * (1.0 + math.erf(x * SQRT_HALF)), math.exp(-0.5 * x * x) * INV_SQRT_2PI


def normal(x):
    """(Φ(x), φ(x)) of a float32 or float64 scalar inside a kernel."""
    return normal_f64(x)


@overload(normal, inline="always")
def typed_normal(x):
    """normal of the type of x, which Numba asks for when it compiles a kernel."""
    if x.bitwidth == 32:
        return lambda x: normal_f32(x)
    return lambda x: normal_f64(x)
