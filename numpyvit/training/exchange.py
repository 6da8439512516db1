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
from .tree import SUMS, deal, inner, outer, pieces


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


class Ranges:
    """Which rank owns which range of a flat vector, and how ranges travel. One process by itself owns all of it.

    world: ranks.world().   size: elements of the vector.   whole: as in cuts.   The own range is lo to hi.
    """

    def __init__(self, world, size, whole=()):
        self.world, self.size = world, size
        self.edges = cuts(size, world.size, whole)
        self.lo, self.hi = self.edges[world.rank:world.rank + 2]
        chunks = [-(-edge // CHUNK) for edge in self.edges]
        self.chunks = chunks[world.rank:world.rank + 2]             # a chunk belongs to the rank in which it starts,
        self.reaches = [max(hi, min(size, end * CHUNK)) if lo < hi else lo   # which adds up its squares
                        for lo, hi, end in zip(self.edges[:-1], self.edges[1:], chunks[1:])]
        self.reach = self.reaches[world.rank]

    def share(self, vector):
        """vector[lo:hi] of every rank → all ranks."""
        me, R = self.world.rank, self.world.size
        if R == 1:
            return
        other, lengths = np.arange(R) != me, np.diff(self.edges)
        first = self.hi if self.lo == 0 else 0                               # MPI wants the buffers at two addresses
        self.world.comm.Alltoallv([vector[self.lo:self.hi], (lengths[me] * other, [0] * R)],
                                  [vector[first:], (lengths * other, np.maximum(np.array(self.edges[:-1]) - first, 0))])

    def collect(self, part):
        """The vector of which every rank has its own range, on rank 0; None on the others."""
        if self.world.size == 1:
            return part
        vector = np.empty(self.size, part.dtype) if self.world.rank == 0 else None
        places = [vector, (np.diff(self.edges), self.edges[:-1])] if self.world.rank == 0 else None
        self.world.comm.Gatherv(part, places)
        return vector

    def scatter(self, vector, part):
        """part ← the own range of rank 0's vector (None on the other ranks)."""
        if self.world.size == 1:
            part[...] = vector
            return
        vector = None if vector is None else np.ascontiguousarray(vector)
        places = [vector, (np.diff(self.edges), self.edges[:-1])] if self.world.rank == 0 else None
        self.world.comm.Scatterv(places, part)


class ShardSum:
    """Adds up the gradients of all shards of a batch, of which every rank holds some, in the order of tree.py.

    ranges: Ranges of the gradient vector.   count: shards of the batch.   kind: "tree" or "fold".
    """

    def __init__(self, ranges, count, kind, dtype):
        self.ranges, self.world, self.count = ranges, ranges.world, count
        steps, shares = SUMS[kind](count), deal(count, self.world.size)
        self.first, self.end = shares[self.world.rank]                       # the own shards
        self.inner, self.outer = inner(steps, self.first, self.end), outer(steps, shares)
        self.pieces = [pieces(steps, *share) for share in shares]    # each rank's sums after inner: where they start
        self.arrivals = [(turn, rank) for turn in range(max(map(len, self.pieces))) for rank in range(self.world.size)
                         if turn < len(self.pieces[rank]) and rank != self.world.rank]
        self.arrived = np.empty((len(self.arrivals), ranges.reach - ranges.lo), dtype)

    def add(self, gradients, pool):
        """gradients[0][lo:reach] ← the sum of all shards there, with lo and reach of the Ranges.

        gradients: a vector for each of the own shards; all else in the vectors is lost.   pool: the threads that work
        """
        vectors = dict(zip(range(self.first, self.end), gradients))

        def add_own(start, end):
            for i, j in self.inner:
                vectors[i][start:end] += vectors[j][start:end]

        if self.inner:
            pool.each_range(add_own, self.ranges.size)
        if self.world.size > 1:
            self.exchange(vectors, gradients[0], pool)

    def exchange(self, vectors, total, pool):
        """The own pieces → the ranks that own the ranges; then the additions that join the pieces of all ranks."""
        me, (lo, reach) = self.world.rank, (self.ranges.lo, self.ranges.reach)
        parts = {i: vector[lo:reach] for i, vector in vectors.items()}
        for turn in range(max(map(len, self.pieces))):                       # one piece of every rank that has so many
            rows = [row for row, arrival in enumerate(self.arrivals) if arrival[0] == turn]
            mine = self.pieces[me][turn] if turn < len(self.pieces[me]) else None
            outgoing = [0 if mine is None or rank == me else end - start
                        for rank, (start, end) in enumerate(zip(self.ranges.edges, self.ranges.reaches))]
            incoming, places = [0] * self.world.size, [0] * self.world.size
            for place, row in enumerate(rows):
                rank = self.arrivals[row][1]
                incoming[rank], places[rank] = reach - lo, place * (reach - lo)
                parts[self.pieces[rank][turn]] = self.arrived[row]
            arrived = self.arrived[rows[0]:rows[-1] + 1] if rows else self.arrived
            self.world.comm.Alltoallv([total if mine is None else vectors[mine], (outgoing, self.ranges.edges[:-1])],
                                      [arrived, (incoming, places)])

        def add(start, end):
            for i, j in self.outer:
                parts[i][start:end] += parts[j][start:end]
            if self.first > 0:                                               # else parts[0] is a view of total
                total[lo + start:lo + end] = parts[0][start:end]

        pool.each_range(add, reach - lo)
