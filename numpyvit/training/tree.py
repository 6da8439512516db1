"""The order in which the gradient sums of the shards are added: a binary tree that depends on their number alone.

    for stride in 1, 2, 4, …:   for i in 0, 2·stride, 4·stride, …:   s[i] ← s[i] + s[i + stride]   if i + stride < count

The total is then in s[0]. Floating-point addition is not associative, so the order decides the bits. In a tree, ranks
that hold neighbouring shards add these first and send one vector each; the bits are the same for any number of ranks.
Everything here is integers; who adds the vectors is the business of lanes.py and exchange.py.
"""


def tree(count):
    """[(i, j, end)] in order: s[i] ← s[i] + s[j], after which s[i] is the sum of the shards i to end."""
    steps, stride = [], 1
    while stride < count:
        steps += [(i, i + stride, min(i + 2 * stride, count)) for i in range(0, count - stride, 2 * stride)]
        stride *= 2
    return steps


def fold(count):
    """The order of runs that were started before there were ranks: s[0] ← s[0] + s[1], then + s[2], and so on."""
    return [(0, j, j + 1) for j in range(1, count)]


SUMS = {"tree": tree, "fold": fold}                                          # config.json's lanes.sum


def deal(count, ranks):
    """Shards lo to hi of each rank, as equal as they can be: [(lo, hi)]"""
    edges = [rank * count // ranks for rank in range(ranks + 1)]
    return list(zip(edges[:-1], edges[1:]))


def inner(steps, lo, hi):
    """The additions that need no shard but lo to hi: [(i, j)] in order."""
    return [(i, j) for i, j, end in steps if lo <= i and end <= hi]


def pieces(steps, lo, hi):
    """The sums that inner() leaves of the shards lo to hi: where each starts. One, if the shards are a subtree."""
    added = {j for _, j in inner(steps, lo, hi)}
    return [i for i in range(lo, hi) if i not in added]


def outer(steps, shares):
    """The additions that join what several holders of shards have: [(i, j)] in order. shares: deal(count, ranks)"""
    done = {step for lo, hi in shares for step in inner(steps, lo, hi)}
    return [(i, j) for i, j, _ in steps if (i, j) not in done]
