// Between images and packed lines: [vector][lane], where lane l of vector s is flat position begin + l * span + s.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels.h"
#include "simd.h"

namespace sparsemeta::SPARSEMETA_ISA {

// A range of flat positions: `span` output vectors from position `begin` on.
struct Chunk {
  std::int64_t begin, span, images;
};

struct FlatRow {
  std::int64_t image, row;
};

inline FlatRow flat_row(const ConvPlan& plan, std::int64_t index) { return {index / plan.rows, index % plan.rows}; }

template <class T>
class Lines {
  using S = Simd<T>;
  static constexpr int lanes = S::lanes;

 public:
  // Positions from `lead` vectors ahead of the chunk, `vectors` of them in each lane.
  Lines(const ConvPlan& plan, const Plane& plane, const Chunk& chunk, std::int64_t lead, std::int64_t vectors)
      : plan_(plan), plane_(plane), chunk_(chunk), vectors_(vectors), start_(chunk.begin - lead),
        count_((lanes - 1) * chunk.span + vectors), room_((count_ + 3 * lanes) / lanes * lanes) {}

  std::int64_t scratch() const { return room_ * lanes; }

  // Pack lines [first, last) of `image`, line i to out + (i - first) * pitch vectors.
  void pack(const T* image, const View& v, std::int64_t first, std::int64_t last, T* flat, T* out, std::int64_t pitch) const {
    const auto phases = static_cast<std::int64_t>(plane_.phases.size());
    const bool together = v.channel == 1 && v.column * plane_.col_step != 1 && phases == 1;
    for (std::int64_t line = first; line < last; line += together ? lanes : 1) {
      const auto width = together ? std::min<std::int64_t>(lanes, last - line) : 1;
      const T* channel = image + line / phases * v.channel;
      std::fill(flat, flat + width * room_, T{0});
      fill(plane_.phases[static_cast<std::size_t>(line % phases)], channel, v, flat, together ? width : 0);
      for (std::int64_t i = 0; i < width; ++i) weave(flat + i * room_, out + (line - first + i) * pitch * lanes);
    }
  }

 private:
  void fill(const Phase& phase, const T* channel, const View& v, T* flat, std::int64_t together) const {
    const auto images = std::max<std::int64_t>(start_, 0) / plan_.pitch;
    for (auto index = images; index * plan_.pitch < start_ + count_; ++index) {
      const auto [image, row] = flat_row(plan_, index);
      if (image >= chunk_.images) break;
      if (row < phase.row_begin || row >= phase.row_end) continue;
      const auto origin = index * plan_.pitch - start_;
      const auto begin = std::max(phase.col_begin, -origin), end = std::min(phase.col_end, count_ - origin);
      if (begin >= end) continue;
      const T* from = channel + image * v.image + (row * plane_.row_step + phase.row_offset) * v.row +
                      (begin * plane_.col_step + phase.col_offset) * v.column;
      if (together) copy_channels(from, v.column * plane_.col_step, end - begin, flat + origin + begin, together);
      else {
        for (std::int64_t i = 0; i < end - begin; i += 64 / sizeof(T)) __builtin_prefetch(from + 2 * v.channel + i, 0, 2);
        copy_row(from, v.column * plane_.col_step, end - begin, flat + origin + begin);
      }
    }
  }

  // Whole vectors are stored: what spills behind the row is zero, and rows are filled in ascending order.
  static void copy_row(const T* from, std::int64_t step, std::int64_t n, T* to) {
    if (step == 1)
      for (std::int64_t i = 0; i < n; i += lanes) S::storeu(to + i, S::load_masked(from + i, S::first(n - i)));
    else
      for (std::int64_t i = 0; i < n; ++i) to[i] = from[i * step];
  }

  // Pixels with contiguous channels, transposed into as many lines.
  void copy_channels(const T* from, std::int64_t step, std::int64_t n, T* to, std::int64_t channels) const {
    typename S::vec r[lanes];
    for (std::int64_t i = 0; i < n; i += lanes) {
      for (int k = 0; k < lanes; ++k) r[k] = i + k < n ? S::load_masked(from + (i + k) * step, S::first(channels)) : S::zero();
      S::transpose(r);
      for (std::int64_t k = 0; k < channels; ++k) S::storeu(to + i + k * room_, r[k]);
    }
  }

  void weave(const T* flat, T* out) const {
    typename S::vec r[lanes];
    for (std::int64_t s = 0; s < vectors_; s += lanes) {
      for (int l = 0; l < lanes; ++l) r[l] = S::loadu(flat + l * chunk_.span + s);
      S::transpose(r);
      for (int t = 0; t < lanes; ++t) S::store(out + (s + t) * lanes, r[t]);
    }
  }

  const ConvPlan& plan_;
  const Plane& plane_;
  const Chunk& chunk_;
  std::int64_t vectors_, start_, count_, room_;
};

// Where the elements of one tile of one phase belong in the image.
template <class T>
class Tile {
  using S = Simd<T>;
  struct Run {
    std::int64_t offset;
    int lane, begin, length;
  };

 public:
  Tile(const ConvPlan& plan, const Plane& plane, const Phase& phase, const Chunk& chunk, const View& v, std::int64_t first, int size)
      : size_(size), step_(plane.col_step * v.column) {
    for (int lane = 0; lane < S::lanes; ++lane) {
      const auto position = chunk.begin + lane * chunk.span + first;
      auto index = position / plan.pitch, column = position % plan.pitch;
      for (std::int64_t t = 0; t < size; t += plan.pitch - column, column = 0, ++index) {
        const auto [image, row] = flat_row(plan, index);
        if (image >= chunk.images) break;
        if (row < phase.row_begin || row >= phase.row_end) continue;
        const auto begin = std::max(phase.col_begin, column), end = std::min(phase.col_end, column + size - t);
        if (begin >= end) continue;
        const auto offset = image * v.image + (row * plane.row_step + phase.row_offset) * v.row +
                            (begin * plane.col_step + phase.col_offset) * v.column;
        runs_[count_++] = {offset, lane, static_cast<int>(t + begin - column), static_cast<int>(end - begin)};
      }
    }
  }

  void prefetch(const T* channel) const {
    for (int i = 0; i < count_; ++i) __builtin_prefetch(channel + runs_[i].offset, 1, 2);
  }

  // `vectors`: [size][lanes] of one line; `channel`: where its channel starts in the image.
  void unpack(const T* vectors, T* channel) const {
    typename S::vec r[S::lanes];
    for (int t = 0; t < S::lanes; ++t) r[t] = t < size_ ? S::load(vectors + t * S::lanes) : S::zero();
    S::transpose(r);
    for (int i = 0; i < count_; ++i) {
      const auto& run = runs_[i];
      if (step_ == 1)
        S::store_masked(channel + run.offset - run.begin, r[run.lane], S::first(run.length) << run.begin);
      else
        for (int k = 0; k < run.length; ++k) channel[run.offset + k * step_] = r[run.lane][run.begin + k];
    }
  }

 private:
  int size_, count_ = 0;
  std::int64_t step_;
  Run runs_[S::lanes * S::lanes];
};

}  // namespace sparsemeta::SPARSEMETA_ISA
