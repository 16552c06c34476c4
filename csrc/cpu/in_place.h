// Generated code on contiguous images where they lie, see ../README.md. float32, AVX-512.
#pragma once

#include <omp.h>

#include <algorithm>

#include "../generated.h"
#include "kernels.h"
#include "lane_sums.h"
#include "scratch.h"

namespace sparsemeta::SPARSEMETA_ISA {

constexpr std::int64_t lanes16 = 16;

// Whether rows and columns of a view make one contiguous plane for each channel.
inline bool has_planes(const View& v, const Plane& p) { return (p.width == 1 || v.column == 1) && (p.height == 1 || v.row == p.width); }

// Whether its images are such planes one after another, and each starts at a whole vector.
inline bool is_in_place(const View& v, const Plane& p, const Work& work) {
  const auto size = p.channels * p.height * p.width;
  return v.data % 64 == 0 && has_planes(v, p) && (p.channels == 1 || v.channel == p.height * p.width) && (work.images == 1 || (v.image >= size && v.image % lanes16 == 0)) &&
         (work.tasks == 1 || v.task % lanes16 == 0);
}

// The first and the last channels of a batch, copied to where a shifted vector may read past them.
class Edges {
 public:
  Edges(const InPlace& p, std::int64_t channels, Buffer<float>& buffer)
      : slack_((p.reach + 3 * lanes16) / lanes16 * lanes16 + lanes16), size_(channels * p.plane), reach_(std::min(size_, p.edge(channels) * p.plane + slack_)) {
    start_ = (size_ - reach_) / lanes16 * lanes16;
    const auto room = slack_ + (reach_ + 2 * lanes16) / lanes16 * lanes16 + slack_;
    first_ = buffer.get(2 * room) + slack_;
    last_ = first_ + room - start_;
    std::fill_n(first_ - slack_, 2 * room, 0.0f);
  }

  void copy(const float* first_image, const float* last_image) {
    std::copy_n(first_image, reach_, first_);
    std::copy_n(last_image + start_, size_ - start_, last_ + start_);
  }

  // Where an image's first and last channels are to be read, `x` into it.
  const float* first(const float* x, std::int64_t skip, std::int64_t n, std::int64_t images) const {
    const bool behind = n == images - 1 && reach_ == size_;  // the ends meet: no channel counts as one of the last
    return n == 0 ? first_ + skip : behind ? last_ + skip : x;
  }
  const float* last(const float* x, std::int64_t skip, std::int64_t n, std::int64_t images) const {
    return n == images - 1 ? last_ + skip : x;
  }

 private:
  std::int64_t slack_, size_, reach_, start_;
  float *first_, *last_;  // where the image would start
};

// The forward, or with the transposed code and masks the input gradient.
struct InPlaceProduct {
  const InPlace& place;
  const GeneratedProduct& code;
  const std::vector<std::uint16_t>& masks;
  const std::int64_t channels_in;
  View in, out;
  Rows values, bias;

  const float* image(std::int64_t t, std::int64_t n) const { return reinterpret_cast<const float*>(in.data) + t * in.task + n * in.image; }

  // Vectors [begin, end) of the images of task t, one part of the code after another.
  void tile(std::int64_t t, std::int64_t begin, std::int64_t end, std::int64_t images, std::int64_t first_part, std::int64_t last_part,
            const float* kept, const Edges& edges) const {
    float* y = reinterpret_cast<float*>(out.data) + t * out.task;
    const float* offset = bias.data ? reinterpret_cast<const float*>(bias.data) + t * bias.task : nullptr;
    for (auto part = first_part; part < last_part; ++part)
      for (auto at = begin; at < end;) {
        const auto n = at / place.vectors, v = at % place.vectors, count = std::min(place.vectors - v, end - at);
        const auto skip = v * lanes16;
        const float* x = image(t, n) + skip;
        const auto ahead = at + (end - begin);
        float* to = y + n * out.image + skip;
        code.run(part, {x, edges.first(x, skip, n, images), edges.last(x, skip, n, images), kept, to, masks.data() + v * place.mask_row, offset,
                        image(t, ahead / place.vectors) + ahead % place.vectors * lanes16, to + 2 * lanes16, count});
        at += count;
      }
  }

  const float* sorted_values(std::int64_t t) const {
    const auto& source = code.source();
    float* kept = Scratch<float>::mine().values.get(static_cast<std::int64_t>(source.size()) + 1);
    const float* given = reinterpret_cast<const float*>(values.data) + t * values.task;
    for (std::size_t j = 0; j < source.size(); ++j) kept[j] = given[source[j]];
    return kept;
  }

  // Threads share the positions; of a pattern whose code is far larger than the caches they share the code.
  void run(const Work& work, int threads) const {
    const auto each = work.images * place.vectors, all = work.tasks * each;
    const bool by_code = work.tasks < threads && code.groups() >= 8 * threads;
#pragma omp parallel num_threads(threads)
    {
      const auto me = omp_get_thread_num(), team = omp_get_num_threads();
      const auto begin = by_code ? 0 : all * me / team, end = by_code ? all : all * (me + 1) / team;
      const auto first = by_code ? code.group_begin(code.groups() * me / team) : 0;
      const auto last = by_code ? code.group_begin(code.groups() * (me + 1) / team) : code.parts();
      Edges edges(place, channels_in, Scratch<float>::mine().other);
      const float* kept = nullptr;
      for (std::int64_t at = begin, task = -1; at < end;) {
        const auto t = at / each, stop = std::min(end, (t + 1) * each);
        if (t != task) kept = sorted_values(task = t), edges.copy(image(t, 0), image(t, work.images - 1));
        const auto tiles = (stop - at + code.tile_vectors() - 1) / code.tile_vectors();
        const auto next = at + (stop - at + tiles - 1) / tiles;
        tile(t, at - t * each, next - t * each, work.images, first, last, kept, edges);
        at = next;
      }
    }
  }
};

// Tiles of the weight gradient: x where it lies, the lines of g side by side, one group after another. A tile is a part of
// one image or some whole ones; the first and the last image are read from other places, and so alone.
struct InPlaceTiles {
  const ConvPlan& plan;
  const GeneratedCorrelation& code;
  View g, x;
  static constexpr auto most = GeneratedCorrelation::most_vectors;

  struct Tile {
    std::int64_t image, images, begin, vectors;
  };

  const std::vector<std::int32_t>& source() const { return code.source(); }

  std::int64_t count(const Work& work, std::int64_t) const { return at_once() > 1 ? std::min<std::int64_t>(work.images, 2) + groups(work) : work.images * tiles(); }

  // sums += tile c of task t.
  void add(std::int64_t c, std::int64_t t, const Work& work, std::int64_t, const LaneSums<float>& sums) const {
    const auto& place = plan.in_place;
    const auto tile = this->tile(c, work), next = this->tile(std::min(c + 1, count(work, 0) - 1), work);
    auto& scratch = Scratch<float>::mine();
    const float* from = at(x, t, tile);
    const auto step = [&](const View& v) { return (v.image - tile.vectors * lanes16) * static_cast<std::int64_t>(sizeof(float)); };
    CorrelationOperands operands{from, from, from, nullptr, nullptr, nullptr, place.masks.data() + tile.begin * place.mask_row,
                                 at(x, t, next), at(g, t, next), tile.vectors, tile.images, step(x), step(g)};
    if (tile.image == 0 || tile.image == work.images - 1) {
      const auto skip = tile.begin * lanes16;
      Edges edges(place, plan.x.channels, scratch.other);
      edges.copy(from - skip, from - skip);
      operands.first = edges.first(from, skip, tile.image, work.images);
      operands.last = edges.last(from, skip, tile.image, work.images);
    }
    for (const auto& group : code.groups()) {
      float* held = scratch.packed.get((group.lines_end - group.lines_begin) * pitch());
      for (auto line = group.lines_begin; line < group.lines_end; ++line) pack(at(g, t, tile) + line * g.channel, tile, held + (line - group.lines_begin) * pitch());
      operands.g = held - group.lines_begin * pitch();
      sums.add(code, group.parts_begin, group.parts_end, operands);
    }
  }

  void pack(const float* from, const Tile& tile, float* to) const {
    using S = Simd<float>;
    const auto n = std::min(tile.vectors * lanes16, plan.in_place.plane - tile.begin * lanes16), whole = n / lanes16 * lanes16;
    for (std::int64_t i = 0; i < tile.images; ++i, from += g.image, to += tile.vectors * lanes16) {
      for (std::int64_t k = 0; k < whole; k += lanes16) S::store(to + k, S::loadu(from + k));
      if (whole < n) S::store(to + whole, S::load_masked(from + whole, S::first(n - whole)));
    }
  }

  static std::int64_t pitch() { return (most + 1) * lanes16; }
  std::int64_t tiles() const { return (plan.in_place.vectors + most - 1) / most; }      // of an image
  std::int64_t at_once() const { return most / std::max<std::int64_t>(1, plan.in_place.vectors); }  // images of a tile
  std::int64_t groups(const Work& work) const { return (std::max<std::int64_t>(work.images - 2, 0) + at_once() - 1) / at_once(); }

  Tile tile(std::int64_t c, const Work& work) const {
    const auto all = plan.in_place.vectors;
    if (at_once() > 1) {
      const auto between = work.images - 2, n = groups(work);
      if (c == 0 || c > n) return {c == 0 ? 0 : work.images - 1, 1, 0, all};
      const auto begin = between * (c - 1) / n, end = between * c / n;
      return {1 + begin, end - begin, 0, all};
    }
    const auto i = c % tiles(), begin = all * i / tiles();
    return {c / tiles(), 1, begin, all * (i + 1) / tiles() - begin};
  }
  static const float* at(const View& v, std::int64_t task, const Tile& tile) {
    return reinterpret_cast<const float*>(v.data) + task * v.task + tile.image * v.image + tile.begin * lanes16;
  }
};

}  // namespace sparsemeta::SPARSEMETA_ISA
