// Programs of one block of threads: convolution (forward and input gradient alike) and weight gradient.
#pragma once

#include "conv_index.h"

namespace sparsemeta::cuda {

// Strided [tasks, images, channels, rows, columns]; strides in elements, 0 where all tasks share the tensor.
struct View {
  std::uintptr_t data;
  std::int64_t task, image, channel, row, column;
};

struct ConvArgs {
  const Table* table;
  View in, out;
  std::uintptr_t values, bias;  // bias may be 0
  std::int64_t value_task, bias_task;
  std::int64_t images, task_blocks;
};

// Where a weight's sum ends: as its gradient or, where there are `values`, as their new value after a first-order step.
struct Epilogue {
  std::uintptr_t out;  // [tasks, nnz]
  std::uintptr_t values;  // 0 for none
  std::int64_t value_task;
  std::int32_t nnz;
  float rate;
};

// Weight gradient. With several splits the sums go to `parts` [splits, tasks, nnz], to be added by `add_parts`.
struct GradArgs {
  const Table* table;
  View g, x;
  Epilogue end;
  std::uintptr_t parts;
  std::int64_t tasks, images;
  std::int32_t splits;
};

struct PartsArgs {
  Epilogue end;
  std::uintptr_t parts;
  std::int64_t tasks;
  std::int32_t splits;
};

// The input channels of a chunk around one tile, zeros where the image ends.
template <typename T>
SPARSEMETA_KERNEL void stage_input(const View& in, int task, std::int64_t batch, const Table& t, const Phase& p, const Chunk& c,
                                   const Place& tile, float* staged, int thread, int threads) {
  const T* data = reinterpret_cast<const T*>(in.data) + task * in.task;
  for (int i = thread; i < c.channels * p.plane; i += threads) {
    const int channel = p.by_plane.quotient(i), in_plane = p.by_plane.remainder(i, channel);
    const int image = p.by_image_slots.quotient(in_plane), in_image = p.by_image_slots.remainder(in_plane, image);
    const int y = p.by_columns.quotient(in_image), x = p.by_columns.remainder(in_image, y);
    const int row = p.rows.input(tile.row, y), column = p.columns.input(tile.column, x);
    const bool inside = tile.image + image < batch && p.rows.reads(row) && p.columns.reads(column);
    const std::int64_t from = (tile.image + image) * in.image + t.channels()[c.channel + channel] * in.channel;
    staged[i] = inside ? load(data + from + row * in.row + column * in.column) : 0.0f;
  }
}

SPARSEMETA_KERNEL void stage_taps(const Table& t, const Chunk& c, Tap* staged, int thread, int threads) {
  for (int i = thread; i < c.warp_tap[t.warps]; i += threads) staged[i] = t.taps()[c.tap + i];
}

// Of P pixels of a tile, `step` apart.
template <int P>
SPARSEMETA_KERNEL void find_slots(const Phase& p, int pixel, int step, int* slot) {
  SPARSEMETA_UNROLL
  for (int i = 0; i < P; ++i) {
    const Pixel at = pixel_of(p, pixel + i * step);
    slot[i] = at.image < p.images ? slot_of(p, at) * kWord : 0;  // a pixel past the tile reads some staged input, to no effect
  }
}

template <int P>
SPARSEMETA_KERNEL void load_inputs(const float* input, const Tap& tap, const int* slot, float* in) {
  SPARSEMETA_UNROLL
  for (int k = 0; k < P; ++k) in[k] = *reinterpret_cast<const float*>(reinterpret_cast<const char*>(input) + (slot[k] + tap.slot));
}

template <int P>
struct ConvRegisters {
  float sum[kRows][P];
  int slot[P];
};

// One warp's taps of a chunk: an input is loaded once for all outputs that keep a weight there.
template <int P>
SPARSEMETA_KERNEL void accumulate(const Tap* taps, int begin, int end, const float* input, const float* value, ConvRegisters<P>& r) {
  for (int i = begin; i < end; ++i) {
    const Tap tap = taps[i];
    float in[P];
    load_inputs<P>(input, tap, r.slot, in);
    SPARSEMETA_UNROLL
    for (int row = 0; row < kRows; ++row)
      if (tap.rows >> row & 1) {  // the same for all lanes
        const float w = *value++;
        SPARSEMETA_UNROLL
        for (int k = 0; k < P; ++k) r.sum[row][k] += w * in[k];
      }
  }
}

// What a block of the grid computes.
struct Work {
  const Phase& phase;
  int task, group;
  Place tile;
};

SPARSEMETA_KERNEL Work work_of(const ConvArgs& a, std::int64_t block) {
  const Table& t = *a.table;
  std::int64_t rest = block % a.task_blocks;
  int which = 0;
  for (; rest >= t.phase(which).tiles(a.images) * t.groups; ++which) rest -= t.phase(which).tiles(a.images) * t.groups;
  const Phase& p = t.phase(which);
  return {p, static_cast<int>(block / a.task_blocks), static_cast<int>(rest % t.groups), place_of(p, rest / t.groups)};
}

// The sums of R outputs, from `first` on, at P pixels of a tile, `step` apart.
template <typename T, int R, int P>
SPARSEMETA_KERNEL void write_outputs(const ConvArgs& a, const Work& work, int first, int pixel, int step, const float (&sum)[R][P]) {
  const Phase& p = work.phase;
  const Place& tile = work.tile;
  const int outputs = a.table->outputs;
  T* out = reinterpret_cast<T*>(a.out.data) + work.task * a.out.task;
  const T* bias = reinterpret_cast<const T*>(a.bias) + work.task * a.bias_task;
  SPARSEMETA_UNROLL
  for (int k = 0; k < P; ++k) {
    const Pixel at = pixel_of(p, pixel + k * step);
    if (!exists(p, tile, at, a.images)) continue;
    T* to = out + (tile.image + at.image) * a.out.image + p.rows.out(tile.row + at.row) * a.out.row +
            p.columns.out(tile.column + at.column) * a.out.column;
    SPARSEMETA_UNROLL
    for (int row = 0; row < R; ++row)
      if (first + row < outputs) store(to + (first + row) * a.out.channel, sum[row][k] + (a.bias ? load(bias + first + row) : 0.0f));
  }
}

// The values of a chunk, in the order of their use.
template <typename T>
SPARSEMETA_KERNEL void stage_values(const ConvArgs& a, int task, const Chunk& c, int values, float* staged, int thread, int threads) {
  const T* from = reinterpret_cast<const T*>(a.values) + task * a.value_task;
  const std::int32_t* source = a.table->sources() + c.value;
  for (int v = thread; v < values; v += threads) staged[v] = load(from + source[v]);
}

// One tile of pixels and one group of outputs of one task: lanes are pixels, warps are outputs.
template <typename T, int P, class Team>
SPARSEMETA_KERNEL void convolve(const ConvArgs& a, std::int64_t block, float* shared, Team& team) {
  const Table& t = *a.table;
  const Work work = work_of(a, block);
  const Phase& p = work.phase;
  team.each([&](int thread, ConvRegisters<P>& r) {
    find_slots<P>(p, thread % kLanes, kLanes, r.slot);
    SPARSEMETA_UNROLL
    for (int row = 0; row < kRows; ++row)
      SPARSEMETA_UNROLL
      for (int k = 0; k < P; ++k) r.sum[row][k] = 0.0f;
  });
  for (int i = t.chunk_begin(p, work.group); i < t.chunk_begin(p, work.group + 1); ++i) {
    const Chunk& c = t.chunk(i);
    const int values = c.warp_value[t.warps];
    const Layout at(c.warp_tap[t.warps], c.channels, p.plane, values);
    Tap* taps = reinterpret_cast<Tap*>(shared);
    team.each([&](int thread, ConvRegisters<P>&) {
      stage_taps(t, c, taps, thread, team.threads);
      stage_input<T>(a.in, work.task, a.images, t, p, c, work.tile, shared + at.input, thread, team.threads);
      stage_values<T>(a, work.task, c, values, shared + at.values, thread, team.threads);
    });
    team.each([&](int thread, ConvRegisters<P>& r) {
      const int warp = thread / kLanes;
      accumulate<P>(taps, c.warp_tap[warp], c.warp_tap[warp + 1], shared + at.input, shared + at.values + c.warp_value[warp], r);
    });
  }
  team.each([&](int thread, ConvRegisters<P>& r) {
    const int first = (work.group * t.warps + thread / kLanes) * kRows;
    write_outputs<T>(a, work, first, thread % kLanes, kLanes, r.sum);
  });
}

template <int P>
struct GradRegisters {
  float g[kRows][P];
  int slot[P];
};

template <typename T, int P>
SPARSEMETA_KERNEL void load_gradient(const GradArgs& a, const Phase& p, const Place& tile, int task, int first, int outputs, int lane,
                                     GradRegisters<P>& r) {
  const T* g = reinterpret_cast<const T*>(a.g.data) + task * a.g.task;
  SPARSEMETA_UNROLL
  for (int k = 0; k < P; ++k) {
    const Pixel at = pixel_of(p, lane + k * kLanes);
    const bool there = exists(p, tile, at, a.images);
    const T* from = g + (tile.image + at.image) * a.g.image + (tile.row + at.row) * a.g.row + (tile.column + at.column) * a.g.column;
    from += first * a.g.channel;
    SPARSEMETA_UNROLL
    for (int row = 0; row < kRows; ++row, from += a.g.channel) r.g[row][k] = there && first + row < outputs ? load(from) : 0.0f;
  }
}

// The taps of one batch: each lane's part of their sums. Returns the tap after the batch, and the number of sums.
template <int P>
SPARSEMETA_KERNEL int correlate(const Tap* taps, int tap, const float* input, const GradRegisters<P>& r, float* parts, int& count) {
  std::int32_t rows;
  count = 0;
  do {
    const Tap here = taps[tap++];
    rows = here.rows;
    float in[P];
    load_inputs<P>(input, here, r.slot, in);
    SPARSEMETA_UNROLL
    for (int row = 0; row < kRows; ++row)
      if (rows >> row & 1) {
        float sum = 0.0f;
        SPARSEMETA_UNROLL
        for (int k = 0; k < P; ++k) sum += r.g[row][k] * in[k];
        parts[count++ * kBatchRow] = sum;
      }
  } while (!(rows & kLast));
  return tap;
}

template <typename T>
SPARSEMETA_KERNEL void finish(const Epilogue& e, std::int64_t task, int weight, float sum) {
  if (e.values) sum = load(reinterpret_cast<const T*>(e.values) + task * e.value_task + weight) - e.rate * sum;
  store(reinterpret_cast<T*>(e.out) + task * e.nnz + weight, sum);
}

// One chunk of the weights of one task over one split of the tiles. A total has one thread to add to it, in the order
// of the tiles: the same shapes give the same bits.
template <typename T, int P, class Team>
SPARSEMETA_KERNEL void weight_gradient(const GradArgs& a, std::int64_t block, float* shared, Team& team) {
  const Table& t = *a.table;
  const Chunk& c = t.chunk(static_cast<int>(block % t.all_chunks));
  const int split = static_cast<int>(block / t.all_chunks % a.splits), task = static_cast<int>(block / t.all_chunks / a.splits);
  const Phase& p = t.phase(0);
  const int values = c.warp_value[t.warps];
  const Layout at(c.warp_tap[t.warps], c.channels, p.plane, 2 * values);
  Tap* taps = reinterpret_cast<Tap*>(shared);
  float *input = shared + at.input, *totals = shared + at.values, *parts = shared + at.end;
  team.each([&](int thread, GradRegisters<P>& r) {
    find_slots<P>(p, thread % kLanes, kLanes, r.slot);
    stage_taps(t, c, taps, thread, team.threads);
    for (int i = thread; i < 2 * values; i += team.threads) totals[i] = 0.0f;
  });
  const std::int64_t tiles = p.tiles(a.images), end = split_begin(tiles, split + 1, a.splits);
  for (std::int64_t i = split_begin(tiles, split, a.splits); i < end; ++i) {
    const Place tile = place_of(p, i);
    team.each([&](int thread, GradRegisters<P>& r) {
      stage_input<T>(a.x, task, a.images, t, p, c, tile, input, thread, team.threads);
      const int first = (c.group * t.warps + thread / kLanes) * kRows;
      load_gradient<T, P>(a, p, tile, task, first, t.outputs, thread % kLanes, r);
    });
    team.warps([&](auto& warp) {
      float* own = parts + warp.index * kBatch * kBatchRow;
      int value = c.warp_value[warp.index];
      for (int tap = c.warp_tap[warp.index]; tap < c.warp_tap[warp.index + 1];) {
        int next = 0, count = 0;
        warp.each([&](int lane, GradRegisters<P>& r) { next = correlate<P>(taps, tap, input, r, own + lane, count); });
        warp.each([&](int lane, GradRegisters<P>&) {  // a lane adds up half a sum
          const int which = lane % kBatch, half = lane / kBatch;
          if (which >= count) return;
          float sum = 0.0f;
          SPARSEMETA_UNROLL
          for (int k = 0; k < kBatch; ++k) sum += own[which * kBatchRow + half * kBatch + k];
          totals[2 * (value + which) + half] += sum;
        });
        tap = next;
        value += count;
      }
    });
  }
  team.each([&](int thread, GradRegisters<P>&) {
    for (int v = thread; v < values; v += team.threads) {
      const int weight = t.sources()[c.value + v];
      const float sum = totals[2 * v] + totals[2 * v + 1];
      if (a.splits > 1)
        reinterpret_cast<float*>(a.parts)[(split * a.tasks + task) * t.nnz + weight] = sum;
      else
        finish<T>(a.end, task, weight, sum);
    }
  });
}

// One weight of one task: the splits' sums, in their order.
template <typename T>
SPARSEMETA_KERNEL void add_parts(const PartsArgs& a, std::int64_t i) {
  const std::int64_t count = a.tasks * a.end.nnz;
  if (i >= count) return;
  float sum = 0.0f;
  for (int split = 0; split < a.splits; ++split) sum += reinterpret_cast<const float*>(a.parts)[split * count + i];
  finish<T>(a.end, i / a.end.nnz, static_cast<int>(i % a.end.nnz), sum);
}

}  // namespace sparsemeta::cuda
