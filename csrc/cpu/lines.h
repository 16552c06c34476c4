// Between images and flat lines: every channel (of every phase of the stride) as one row of positions, zeros included.
#pragma once

#include <algorithm>

#include "kernels.h"
#include "simd.h"

namespace sparsemeta::SPARSEMETA_ISA {

// Flat output positions [begin, begin + span) of a batch of `images`.
struct Chunk {
  std::int64_t begin, span, images;
};

struct FlatRow {
  std::int64_t image, row;
};

inline FlatRow flat_row(const ConvPlan& plan, std::int64_t index) { return {index / plan.rows, index % plan.rows}; }

// Calls f(image, row, column, at, n) for the pieces of rows of `phase` that lie in flat positions [start, start + count);
// `at` counts from start.
template <class F>
void for_rows(const ConvPlan& plan, const Phase& phase, std::int64_t images, std::int64_t start, std::int64_t count, F f) {
  auto flat = std::max<std::int64_t>(start, 0) / plan.pitch;
  auto image = flat / plan.rows, row = flat % plan.rows;
  for (; flat * plan.pitch < start + count && image < images; ++flat, ++row) {
    if (row == plan.rows) row = 0, ++image;
    if (image == images || row < phase.row_begin || row >= phase.row_end) continue;
    const auto origin = flat * plan.pitch - start;
    const auto begin = std::max(phase.col_begin, -origin), end = std::min(phase.col_end, count - origin);
    if (begin < end) f(image, row, begin, origin + begin, end - begin);
  }
}

// Element of the first channel of an image plane at plane coordinates (row, column) of a phase.
inline std::int64_t offset(const Plane& plane, const Phase& phase, const View& v, std::int64_t image, std::int64_t row, std::int64_t column) {
  return image * v.image + (row * plane.row_step + phase.row_offset) * v.row + (column * plane.col_step + phase.col_offset) * v.column;
}

constexpr int most_tile_vectors = 64;

template <class T>
class Lines {
  using S = Simd<T>;
  static constexpr int lanes = S::lanes;

 public:
  // Flat positions from `lead` ahead of the chunk to `tail` behind it.
  Lines(const ConvPlan& plan, const Plane& plane, const Chunk& chunk, std::int64_t lead, std::int64_t tail)
      : plan_(plan), plane_(plane), images_(chunk.images), start_(chunk.begin - lead), count_(lead + chunk.span + tail) {}

  // Pack lines [first, last) of the tensor at `image`, one every `pitch` elements; a vector behind each may be written too.
  void pack(const T* image, const View& v, std::int64_t first, std::int64_t last, T* out, std::int64_t pitch) const {
    const auto phases = static_cast<std::int64_t>(plane_.phases.size());
    const bool together = v.channel == 1 && v.column * plane_.col_step != 1 && phases == 1;
    for (auto line = first; line < last;) {
      const auto n = together ? std::min<std::int64_t>(lanes, last - line) : 1;
      T* to = out + (line - first) * pitch;
      for (std::int64_t i = 0; i < n; ++i) std::fill_n(to + i * pitch, count_, T{0});
      fill(plane_.phases[static_cast<std::size_t>(line % phases)], image + line / phases * v.channel, v, to, pitch, together ? n : 0);
      line += n;
    }
  }

 private:
  void fill(const Phase& phase, const T* channel, const View& v, T* to, std::int64_t pitch, std::int64_t together) const {
    const auto step = v.column * plane_.col_step;
    for_rows(plan_, phase, images_, start_, count_, [&](auto image, auto row, auto column, auto at, auto n) {
      const T* from = channel + offset(plane_, phase, v, image, row, column);
      if (together) copy_channels(from, step, n, to + at, pitch, together);
      else if (step == 1) copy_row(from, n, to + at, v.channel);
      else
        for (std::int64_t i = 0; i < n; ++i) to[at + i] = from[i * step];
    });
  }

  // Whole vectors are stored: what spills behind the row is zero, and rows are filled in ascending order. The channel after
  // the next is on its way meanwhile: hardware does not prefetch across its pages.
  static void copy_row(const T* from, std::int64_t n, T* to, std::int64_t channel) {
    for (std::int64_t i = 0; i < n; i += lanes) {
      __builtin_prefetch(from + 2 * channel + i, 0, 2);
      S::storeu(to + i, S::load_masked(from + i, S::first(n - i)));
    }
  }

  // Pixels with contiguous channels, transposed into as many lines.
  static void copy_channels(const T* from, std::int64_t step, std::int64_t n, T* to, std::int64_t pitch, std::int64_t channels) {
    typename S::vec r[lanes];
    for (std::int64_t i = 0; i < n; i += lanes) {
      for (int k = 0; k < lanes; ++k) r[k] = i + k < n ? S::load_masked(from + (i + k) * step, S::first(channels)) : S::zero();
      S::transpose(r);
      for (std::int64_t k = 0; k < channels; ++k) S::storeu(to + i + k * pitch, r[k]);
    }
  }

  const ConvPlan& plan_;
  const Plane& plane_;
  std::int64_t images_, start_, count_;
};

// Where the positions of one tile belong in the image, for one phase.
template <class T>
class Tile {
  using S = Simd<T>;
  struct Run {
    std::int64_t offset, at, length;
  };

 public:
  Tile(const ConvPlan& plan, const Plane& plane, const Phase& phase, const View& v, std::int64_t images, std::int64_t start, std::int64_t count)
      : step_(plane.col_step * v.column) {
    for_rows(plan, phase, images, start, count, [&](auto image, auto row, auto column, auto at, auto n) {
      runs_[count_++] = {offset(plane, phase, v, image, row, column), at, n};
    });
  }

  // One line of sums to its channel.
  void unpack(const T* line, T* channel) const {
    for (int r = 0; r < count_; ++r) {
      const auto [offset, at, length] = runs_[r];
      if (step_ == 1)
        for (std::int64_t i = 0; i < length; i += S::lanes)
          S::store_masked(channel + offset + i, S::load_masked(line + at + i, S::first(length - i)), S::first(length - i));
      else
        for (std::int64_t i = 0; i < length; ++i) channel[offset + i * step_] = line[at + i];
    }
  }

 private:
  int count_ = 0;
  std::int64_t step_;
  Run runs_[S::lanes * most_tile_vectors];
};

}  // namespace sparsemeta::SPARSEMETA_ISA
