"""THE TABLE: every op the layers use, and which compiled kernel stands in for its definition.

`ops/` is the definition of each name below; `kernels/` replaces some of them, with the same signature and the same
numbers up to rounding. Nothing else chooses: a layer that calls F.layer_norm_forward gets what this file bound.
NUMPYVIT_REFERENCE=1 leaves every name with its definition, so that each frame in a debugger is plain NumPy.
"""
import os

from .ops.attention import attention_backward, attention_forward, self_attention_backward, self_attention_forward
from .ops.augment import augment_mixtures, augment_views
from .ops.avg_pool import avg_pool_backward, avg_pool_forward
from .ops.batch_norm import batch_norm_backward, batch_norm_forward
from .ops.bias_activation import bias_activation_backward, bias_activation_forward
from .ops.conv import conv2d_backward, conv2d_forward
from .ops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from .ops.depthwise_conv import depthwise_conv_backward, depthwise_conv_forward
from .ops.dropout import drop_path_backward, drop_path_forward, dropout_backward, dropout_forward
from .ops.layer_norm import layer_norm_backward, layer_norm_forward
from .ops.linear import linear_backward, linear_forward
from .ops.max_pool import max_pool_backward, max_pool_forward
from .ops.muon import muon_step
from .ops.optim import adam_step, adamw_step, average_step, sgd_step, square_sums
from .ops.patch_embed import patch_embed_backward, patch_embed_forward
from .ops.relative_position import relative_position_bias_backward, relative_position_bias_forward
from .ops.residual import residual
from .ops.rotary import rotary_backward, rotary_forward
from .ops.tanh import tanh_backward, tanh_forward
from .ops.window_attention import window_attention_backward, window_attention_forward
from .ops.windows import gather_tokens_backward, gather_tokens_forward

REFERENCE = os.environ.get("NUMPYVIT_REFERENCE", "") not in ("", "0")

if not REFERENCE:                       # % by which a step is slower without each (python tests/bench gains):
    from .kernels.attention import (attention_backward, attention_forward,   # reads and writes heads in place: 23 %
                                    self_attention_backward, self_attention_forward)
    from .kernels.augment import augment_mixtures, augment_views             # one pass: in 5 % of the time
    from .kernels.batch_norm import batch_norm_backward, batch_norm_forward  # five passes in all: 6 % of a CvT
    from .kernels.bias_activation import bias_activation_backward, bias_activation_forward  # one pass: 79 %
    from .kernels.conv import conv2d_backward, conv2d_forward            # 2 to 4 multiplications for 9: 199 % of a stem
    from .kernels.depthwise_conv import depthwise_conv_backward, depthwise_conv_forward  # taps in one sum: 30 % of CvT
    from .kernels.dropout import dropout_backward, dropout_forward           # no array of random bits
    from .kernels.layer_norm import layer_norm_backward, layer_norm_forward  # one pass a row: 22 %
    from .kernels.linear import linear_backward, linear_forward          # bias in place, its gradient in one pass: 12 %
    from .kernels.max_pool import max_pool_backward, max_pool_forward    # one pass: 11 % of the default net
    from .kernels.muon import muon_step                                  # small products for large ones: 96 ms for 125
    from .kernels.optim import adamw_step, average_step, square_sums     # one pass over seven vectors, not a dozen: 2 %
    from .kernels.residual import residual                                   # no new array for a sum: 2 %
    from .kernels.rotary import rotary_backward, rotary_forward              # one pass, not seven: 11 %
    from .kernels.window_attention import (window_attention_backward,        # copies that add and sum: 8 % of a Swin
                                           window_attention_forward)
