"""What ranks tell each other in a step: gradients are added up range by range, and new weights are shared.

    reduce: the shards' gradients of all ranks → the total gradient of a range on the rank that owns the range
    share:  the new weights of the range → all ranks

Every rank owns one contiguous range of the flat vector: it alone adds up the gradient there, keeps the optimiser's
state for the range and updates its weights (ZeRO-1; Rajbhandari et al. 2020, section 5.1). Each rank sends and receives
2n(R − 1)/R elements a step, as in a ring. Additions follow tree.py, so neither the number of ranks nor the network
decides a bit. Ranges travel by Alltoallv; MPICH's Allgatherv took a hundred times as long when ranks shared a core.
"""
import numpy as np

from ..threads import CHUNK
from .tree import deal, inner, outer, pieces


def cuts(size, ranks, whole=()):
    """Where the ranks' ranges of a flat vector of so many elements begin and end: ranks + 1 increasing numbers.

    whole: [(start, end)] of the tensors that one rank has to own whole (Muon's matrices). The other cuts are multiples
    of CHUNK, where threads cut, too, so that elementwise optimisers have the same bits for any number of ranks.
    """
    inside = [range(start + 1, end) for start, end in whole]
    candidates = {0, size} | {place for pair in whole for place in pair}
    candidates |= {place for place in range(0, size, CHUNK) if not any(place in r for r in inside)}
    candidates = np.array(sorted(candidates))
    targets = np.arange(ranks + 1) * (size / ranks)
    return [int(candidates[np.abs(candidates - target).argmin()]) for target in targets]


class Exchange:
    """The exchange of one model between the ranks of a world.

    world: Ranks.   model: with .flat.   count: shards of a batch.   steps: tree(count).   whole: as in cuts.
    """

    def __init__(self, world, model, count, steps, whole=()):
        size, R = len(model.flat), world.size
        self.world, self.comm = world, world.comm
        self.edges = cuts(size, R, whole)
        self.lo, self.hi = self.edges[world.rank:world.rank + 2]
        self.chunks = [-(-edge // CHUNK) for edge in self.edges]    # rank r sums squares of chunks[r] to chunks[r + 1]
        self.reach = [max(hi, min(size, c * CHUNK)) if lo < hi else lo        # … and needs the gradient up to there
                      for lo, hi, c in zip(self.edges[:-1], self.edges[1:], self.chunks[1:])]
        shares = deal(count, R)
        self.held = [pieces(steps, *share) for share in shares]     # what each rank has to send: where the sums start
        self.shards, self.joins = shares[world.rank], outer(steps, shares)
        self.inner = inner(steps, *self.shards)
        self.order = [(turn, rank) for turn in range(max(map(len, self.held))) for rank, held in enumerate(self.held)
                      if turn < len(held) and rank != world.rank]            # of what arrives; a turn is one Alltoallv
        self.arriving = np.empty((len(self.order), self.reach[world.rank] - self.lo), model.dtype)

    def reduce(self, sums, total, each_range):
        """total[lo:reach] ← the sum of all shards there.

        sums: {i: the vector that starts at shard i} for i in self.held[rank]; the first is total. Contents are lost.
        each_range: Pool.each_range
        """
        me = self.world.rank
        lo, reach = self.lo, self.reach[me]
        parts = {i: vector[lo:reach] for i, vector in sums.items()}
        for turn in range(max(map(len, self.held))):
            rows = [row for row, place in enumerate(self.order) if place[0] == turn]
            mine = self.held[me][turn] if turn < len(self.held[me]) else None
            outgoing = [0 if mine is None or rank == me else end - start
                        for rank, (start, end) in enumerate(zip(self.edges, self.reach))]
            incoming, places = [0] * self.world.size, [0] * self.world.size
            for place, row in enumerate(rows):
                sender = self.order[row][1]
                incoming[sender], places[sender] = reach - lo, place * (reach - lo)
                parts[self.held[sender][turn]] = self.arriving[row]
            arriving = self.arriving[rows[0]:rows[-1] + 1] if rows else self.arriving[:0]
            self.comm.Alltoallv([total if mine is None else sums[mine], (outgoing, self.edges[:-1])],
                                [arriving, (incoming, places)])

        def add(start, end):
            for i, j in self.joins:
                parts[i][start:end] += parts[j][start:end]
            if 0 not in self.held[me]:                                       # else sums[0] is total
                total[lo + start:lo + end] = parts[0][start:end]

        each_range(add, reach - lo)

    def share(self, vector):
        """Every rank's own range of the vector, on all ranks."""
        me, R = self.world.rank, self.world.size
        lengths = np.diff(self.edges)
        others = np.where(np.arange(R) == me, 0, lengths)
        sent, received = [lengths[me] * (rank != me) for rank in range(R)], self.hi if self.lo == 0 else 0
        self.comm.Alltoallv([vector[self.lo:self.hi], (sent, [0] * R)],        # MPI wants two addresses
                            [vector[received:], (others, np.maximum(np.array(self.edges[:-1]) - received, 0))])

    def collect(self, part, size):
        """The vector of which every rank has its own range (part), on rank 0; None on the others."""
        vector = np.empty(size, part.dtype) if self.world.rank == 0 else None
        self.comm.Gatherv(part, [vector, (np.diff(self.edges), self.edges[:-1])] if self.world.rank == 0 else None)
        return vector

    def scatter(self, vector, part):
        """part ← its range of rank 0's vector (None on the other ranks)."""
        self.comm.Scatterv([vector, (np.diff(self.edges), self.edges[:-1])] if self.world.rank == 0 else None, part)
