"""Scaled dot-product attention from queries, keys and values written by hand: four tokens, then two heads.

    python examples/03_attention_by_hand.py                          two seconds

What you will see: scores, softmax and mean of values in numbers small enough to check in your head; the same from
numpyvit.ops.attention; what splitting the channels into two heads changes. In runs/examples/ the weights as a picture.
"""
import math

import numpy as np

from numpyvit.ops.attention import attention_forward
from numpyvit.inspection.plots import colour_bar, panels, save

np.set_printoptions(precision=3, suppress=True)
tokens = ["the", "cat", "sat", "."]
q = np.array([[1., 0, 0, 0], [0, 2, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0]])      # what each token looks for
k = np.array([[0., 0, 0, 2], [2, 2, 0, 0], [0, 1, 2, 0], [0, 0, 0, 0]])      # what each token offers
v = np.array([[1., 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])      # what it hands over: its own number, here


def attention(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[-1])                                # (4, 4): every query with every key
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)     # rows of positive numbers that sum to 1
    return scores, weights, weights @ v


scores, weights, y = attention(q, k, v)
print("q =", q, "k =", k, "scores = q kᵀ / √4 =", scores, "weights = softmax of each row =", weights, sep="\n")
print(f"\n'cat' scores 'cat' with (0·2 + 2·2 + 0·0 + 0·0) / √4 = {scores[1, 1]:.0f}, so its weight is e² / (e⁰ + e² + e¹ + e⁰) = {weights[1, 1]:.3f}")
print(f"'.' looks for nothing: all scores are 0 and all weights {weights[3, 0]}. Its output is the plain mean of the values: {y[3]}")

ours, cache = attention_forward(q[None, None], k[None, None], v[None, None])
assert np.allclose(ours[0, 0], y) and np.allclose(cache.attn[0, 0], weights)
print("numpyvit.ops.attention.attention_forward says the same.\n")

print("Two heads: channels 0, 1 are one attention of width 2, channels 2, 3 another.")
heads = [attention(q[:, c], k[:, c], v[:, c])[1] for c in (slice(0, 2), slice(2, 4))]
split = [a.reshape(1, 4, 2, 2).transpose(0, 2, 1, 3) for a in (q, k, v)]      # (B, N, nh·hd) → (B, nh, N, hd)
_, cache = attention_forward(*split)
assert np.allclose(cache.attn[0], heads)
for h, w in enumerate(heads):
    print(f"head {h}: weights =\n{w}")
print("'sat' sees 'cat' in head 0 and itself in head 1: one head would have had to settle for a mixture.")

figure, axes = panels(3, "who looks at whom: attention weights", side=2.6, right=1.2, columns=3)
for a, w, title in zip(axes, [weights, *heads], ["one head, width 4", "head 0 of two", "head 1 of two"]):
    drawn = a.imshow(w, cmap="viridis", vmin=0, vmax=1)
    a.set_title(title, fontsize=10)
    a.set_xticks(range(4), tokens)
    a.set_yticks(range(4), tokens)
    a.set(xlabel="key")
    for i, j in np.ndindex(4, 4):
        a.text(j, i, f"{w[i, j]:.2f}", ha="center", va="center", color="white" if w[i, j] < 0.6 else "black", fontsize=9)
axes[0].set_ylabel("query")
colour_bar(figure, drawn, axes, "weight")
save(figure, "runs/examples/03_attention.png")
print("figure: runs/examples/03_attention.png")
