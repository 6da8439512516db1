"""Positions of a ViT that are computed, not learned: the table that is added, and the angles of queries and keys."""
import numpy as np

from ..ops.positions import sincos2d_table, sinusoidal_table
from ..ops.rotary import rotary_angles


def fixed_positions(config, dtype):
    """The table that is added but not learned, (1, N(+1), C), or None."""
    token = config.global_pool == "token"
    if config.pos_embed == "sinusoidal":             # the class token is position 0
        table = sinusoidal_table(config.grid[0] * config.grid[1] + token, config.embed_dim)
    elif "sincos2d" in config.pos_embed:             # the class token has no place on the grid: zeros
        table = sincos2d_table(*config.grid, config.embed_dim)
        table = np.concatenate([np.zeros((int(token), config.embed_dim)), table])
    else:
        return None
    return table[None].astype(dtype)


def rotary_tables(config, dtype):
    """cos and sin of the angles by which attention turns queries and keys, each (N(+1), hd/2); (None, None) for others.

    The class token has no place on the grid: its angles are 0.
    """
    if "rotary" not in config.pos_embed:
        return None, None
    angles = rotary_angles(*config.grid, config.embed_dim // config.num_heads)
    angles = np.concatenate([np.zeros((int(config.global_pool == "token"), angles.shape[1])), angles])
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)
