"""CvT's convolutional projection on a 3×3 map: nine queries (stride 1) against four keys (stride 2); and overlapping embedding.

    python examples/06_convolutional_projection.py                   five seconds

What you will see: the map, its nine queries and four keys as shapes and numbers, the 9×4 attention map; what each key has seen, and
how its weight goes back to the tokens; what stride 2 saves in every stage of CvT-13. In runs/examples/ the pictures.
"""
import numpy as np

from numpyvit.layers import DepthwiseBatchNorm
from numpyvit.models.grids import covering, spread_evenly
from numpyvit.ops.attention import attention_forward
from numpyvit.ops.depthwise_conv import depthwise_conv_forward
from numpyvit.inspection.plots import colour_bar, new_figure, panels, save
from numpyvit.inspection.summary import amount, summary

np.set_printoptions(precision=2, suppress=True)
H = W = 3
C, rng = 8, np.random.default_rng(0)
x = rng.standard_normal((1, H, W, C))                                        # a 3×3 map of 8 channels
kernels = {name: rng.standard_normal((C, 1, 3, 3)) / 2 for name in "qkv"}    # a 3×3 kernel for every channel
maps = {name: depthwise_conv_forward(x, kernel, stride=1 if name == "q" else 2, padding=1)[0] for name, kernel in kernels.items()}
q, k, v = (m.reshape(1, 1, -1, C) for m in maps.values())                    # (B, nh, N, hd): one head; a Linear stands between in CvT
y, cache = attention_forward(q, k, v)
attn = cache.attn[0, 0]                                          # (9, 4)
print(f"map {x.shape[1:]}   queries {maps['q'].shape[1:]}, stride 1   keys and values {maps['k'].shape[1:]}, stride 2")
print(f"attention: {attn.shape[0]} queries × {attn.shape[1]} keys, rows sum to 1\n{attn}")
assert np.allclose(attn.sum(axis=1), 1)

window = DepthwiseBatchNorm(C, 3, 2).window                                  # kernel, stride, padding
print("\nalong an axis, key 0 saw tokens 0 and 1 (and padding), key 1 tokens 1 and 2; a token gets the mean of its keys:")
shares = covering(H, 2, *window)                                             # (3 tokens, 2 keys)
print(shares)
spread = spread_evenly(attn.reshape(9, 2, 2), (H, W), *window)               # (9, 3, 3): weights back on the tokens

figure, axes = panels(6, "convolutional projection: 9 queries, 4 keys", side=2.5, right=1.0, columns=3, top=0.9)
drawn = axes[0].imshow(attn, cmap="viridis", vmin=0, vmax=0.7, aspect="auto")
axes[0].set(xticks=range(4), yticks=range(9), xlabel="key", ylabel="query")
axes[0].set_title("attention, 9 × 4", fontsize=9)
seen = np.einsum("ry,cx->rcyx", shares.T > 0, shares.T > 0).reshape(4, H, W)
axes[1].imshow(seen.sum(axis=0), cmap="Blues", vmin=0, vmax=6)
axes[1].set_title("keys that saw each token", fontsize=9)
for r, c in np.ndindex(H, W):
    axes[1].text(c, r, int(seen[:, r, c].sum()), ha="center", va="center")
for a, query in zip(axes[2:], (0, 2, 4, 8)):
    a.imshow(spread[query], cmap="viridis", vmin=0, vmax=0.7)
    a.plot(query % W, query // W, "o", color="crimson")
    a.set_title(f"query {query}: weight on tokens", fontsize=9)
colour_bar(figure, drawn, axes, "weight")
save(figure, "runs/examples/06_nine_queries_four_keys.png")

# --- overlapping token embedding

figure = new_figure(8.5, 3.2)
figure.suptitle("token embedding: which pixels of a row make which token", fontsize=11)
n = 29
for axes, (name, kernel, stride, padding) in zip(figure.subplots(1, 2), [("ViT, Swin: 4×4 patches, side by side", 4, 4, 0),
                                                                         ("CvT: 7×7 windows at stride 4, overlapping", 7, 4, 2)]):
    count = (n + 2 * padding - kernel) // stride + 1
    axes.imshow(covering(n, count, kernel, stride, padding).T > 0, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
    axes.set_title(name, fontsize=10)
    axes.set(xlabel="pixel", ylabel="token", yticks=range(count))
save(figure, "runs/examples/06_overlapping_embedding.png")

# --- what stride 2 saves

print("\nCvT-13, one block of every stage: multiply-adds of keys, values and attention with stride 1, and with stride 2")
for stage in range(3):
    macs = {}
    for stride in (1, 2):
        of_keys = [row for row in summary("cvt_13", kv_stride=stride) if row.name.startswith(f"stage{stage}.blocks.0.attn")
                   and (row.kind == "attention" or row.name.split(".")[4:5] in (["conv_proj_k"], ["conv_proj_v"], ["proj_k"], ["proj_v"]))]
        macs[stride] = sum(row.macs for row in of_keys)
    print(f"  stage {stage}: {amount(macs[1], 1000, '', 'k', 'M', 'G'):>7} → {amount(macs[2], 1000, '', 'k', 'M', 'G'):>7}, {macs[1] / macs[2]:.1f} times less")
print("\nfigures: runs/examples/06_nine_queries_four_keys.png, runs/examples/06_overlapping_embedding.png")
