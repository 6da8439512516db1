"""Swin's two ideas in pictures: the relative position index, built step by step, and the cyclic shift with its mask.

    python examples/04_shifted_windows.py                            five seconds

What you will see: for a 2×2 window coordinates, differences, shift, scale by 2M − 1 and sum, until the index of the paper is
there; in runs/examples/ the index of a 7×7 window, how windows move over an 8×8 map, what the mask forbids, and which tokens one
token sees in a plain and in a shifted block (W-MSA, SW-MSA).
"""
import numpy as np

from numpyvit.ops.relative_position import relative_position_index
from numpyvit.ops.windows import shifted_window_mask, shifted_windows_backward, shifted_windows_forward
from numpyvit.inspection.plots import colour_bar, panels, save

# --- the index, for M = 2

M = 2
coordinates = np.stack(np.meshgrid(np.arange(M), np.arange(M), indexing="ij")).reshape(2, -1)     # (2, M²): row, column
difference = coordinates[:, :, None] - coordinates[:, None]                  # (2, M², M²): query − key, from 1 − M to M − 1
shifted = difference + M - 1                                                 # from 0 to 2M − 2
scaled = shifted.copy()
scaled[0] *= 2 * M - 1                                                       # so that no two offsets share a sum
index = scaled.sum(axis=0)
for name, array in {"coordinates (row; column) of the four tokens": coordinates, "row differences": difference[0],
                    "column differences": difference[1], "rows + M − 1": shifted[0], "columns + M − 1": shifted[1],
                    "rows · (2M − 1)": scaled[0], "their sum: which row of the table serves query i and key j": index}.items():
    print(f"{name}\n{array}")
assert (index == relative_position_index(M)).all()
print("Tokens 0, 1 and tokens 2, 3 are neighbours alike, so both pairs read row", index[0, 1], "of the table: "
      f"{M**4} pairs share {(2 * M - 1)**2} biases a head; for M = 7, {7**4} pairs share {13**2}.")

index = relative_position_index(7)
figure, axes = panels(3, "relative position index of a 7×7 window", side=3.1, right=1.0, columns=3)
drawn = axes[0].imshow(index, cmap="viridis", vmin=0, vmax=168)
axes[0].set(title="all 49 queries (rows) and keys", xticks=range(0, 49, 7), yticks=range(0, 49, 7), xlabel="key", ylabel="query")
for a, query in zip(axes[1:], (0, 24)):
    row = index[query].reshape(7, 7)
    a.imshow(row, cmap="viridis", vmin=0, vmax=168)
    a.set_title(f"the keys of query {query}, {'the corner' if query == 0 else 'the middle'}", fontsize=10)
    for i, j in np.ndindex(7, 7):
        a.text(j, i, row[i, j], ha="center", va="center", fontsize=7, color="white" if row[i, j] < 110 else "black")
axes[0].title.set_fontsize(10)
colour_bar(figure, drawn, axes, "row of the bias table")
save(figure, "runs/examples/04_relative_position_index.png")

# --- windows, shifted

H = W = 8
M, shift = 4, 2
numbers = np.arange(H * W).reshape(1, H, W, 1)
window_of = np.repeat(np.arange(4), M * M).reshape(4, M * M, 1)              # each token's window, in window order
colours = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759"]


def paint(axes, windows, labels, title):
    """A map whose cells have the colours of their windows and the numbers of their tokens"""
    from matplotlib.colors import ListedColormap
    axes.imshow(windows, cmap=ListedColormap(colours), vmin=0, vmax=3, alpha=0.75)
    for i, j in np.ndindex(*windows.shape):
        axes.text(j, i, labels[i, j], ha="center", va="center", fontsize=7)
    axes.set_title(title, fontsize=10)


figure, axes = panels(3, f"windows of {M}×{M} tokens on a map of {H}×{W}: one colour, one window", side=3.2, right=0.2, columns=3)
_, plain = shifted_windows_forward(numbers, M)
windows, cache = shifted_windows_forward(numbers, M, shift)
paint(axes[0], shifted_windows_backward(window_of, plain)[0, :, :, 0], numbers[0, :, :, 0], "W-MSA: the plain cut")
rolled = shifted_windows_backward(windows, plain)[0, :, :, 0]                # the windows, laid out where they are computed
paint(axes[1], shifted_windows_backward(window_of, plain)[0, :, :, 0], rolled, f"SW-MSA: rolled by −{shift}, then cut the same way")
paint(axes[2], shifted_windows_backward(window_of, cache)[0, :, :, 0], numbers[0, :, :, 0], "the same windows, rolled back")
save(figure, "runs/examples/04_cyclic_shift.png")

mask = shifted_window_mask(H, W, M, shift)                                   # (nW, M², M²): 0 or −∞
figure, axes = panels(4, "the mask: which of a window's 16 tokens may attend to which (after the roll)", side=2.5, right=0.2, columns=4)
for w, a in enumerate(axes):
    a.imshow(mask[w] == 0, cmap="Greens", vmin=0, vmax=1.6)
    apart = 4 if w == 3 else 2 if w else 1
    a.set_title(f"window {w}: {'whole' if apart == 1 else f'{apart} parts, kept apart'}", fontsize=9)
    a.set(xlabel="key", ylabel="query" if w == 0 else "", xticks=range(0, 16, 4), yticks=range(0, 16, 4))
figure.supxlabel("green: may attend · white: −∞", fontsize=9)
save(figure, "runs/examples/04_mask.png")

# --- who sees whom

figure, axes = panels(3, "what the token at row 3, column 3 sees", side=2.9, right=0.2, columns=3)
query, reach = 3 * W + 3, {}
for name, s in (("W-MSA", 0), ("SW-MSA", shift)):
    windows, _ = shifted_windows_forward(numbers, M, s)
    may = shifted_window_mask(H, W, M, s) == 0
    reach[name] = np.zeros((H * W, H * W), bool)
    for w, tokens in enumerate(windows[:, :, 0]):
        reach[name][np.ix_(tokens, tokens)] = may[w]
reach["W-MSA, then SW-MSA"] = reach["SW-MSA"].astype(int) @ reach["W-MSA"] > 0
for a, (name, matrix) in zip(axes, reach.items()):
    seen = matrix[query].reshape(H, W)
    a.imshow(seen, cmap="Blues", vmin=0, vmax=1.6)
    a.plot(3, 3, "o", color="crimson")
    a.set_title(f"{name}: {seen.sum()} of {H * W} tokens", fontsize=10)
    a.set_xticks(np.arange(-0.5, W), minor=True)
    a.set_yticks(np.arange(-0.5, H), minor=True)
    a.grid(which="minor", color="white")
    a.tick_params(which="minor", length=0)
save(figure, "runs/examples/04_who_sees_whom.png")
print("figures: runs/examples/04_*.png (index, cyclic shift, mask, who sees whom)")
