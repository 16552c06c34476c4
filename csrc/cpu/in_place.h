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

// The first and the last channels of a batch, or of some images, copied to where a shifted vector may read past them.
class Edges {
 public:
  // `step`: elements from one copied image to the next.
  Edges(const InPlace& p, std::int64_t channels, Buffer<float>& buffer, std::int64_t images = 1, std::int64_t step = 0)
      : slack_((p.reach + 3 * lanes16) / lanes16 * lanes16 + lanes16), size_(channels * p.plane), reach_(std::min(size_, p.edge(channels) * p.plane + slack_)), step_(step) {
    start_ = (size_ - reach_) / lanes16 * lanes16;
    const auto room = slack_ + (reach_ + 2 * lanes16) / lanes16 * lanes16 + slack_ + (images - 1) * step;
    first_ = buffer.get(2 * room) + slack_;
    last_ = first_ + room - start_;
    std::fill_n(first_ - slack_, 2 * room, 0.0f);
  }

  void copy(const float* first_image, const float* last_image, std::int64_t i = 0) {
    std::copy_n(first_image, reach_, first_ + i * step_);
    std::copy_n(last_image + start_, size_ - start_, last_ + i * step_ + start_);
  }

  bool meet() const { return reach_ == size_; }  // the ends meet: no channel counts as one of the last
  const float* first() const { return first_; }  // where the image would start, of which the first channels are a copy
  const float* last() const { return last_; }

  // Where an image's first and last channels are to be read, `x` into it.
  const float* first(const float* x, std::int64_t skip, std::int64_t n, std::int64_t images) const {
    return n == 0 ? first_ + skip : n == images - 1 && meet() ? last_ + skip : x;
  }
  const float* last(const float* x, std::int64_t skip, std::int64_t n, std::int64_t images) const {
    return n == images - 1 ? last_ + skip : x;
  }

 private:
  std::int64_t slack_, size_, reach_, step_, start_;
  float *first_, *last_;
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

  // Those of parts [first, last), in their order.
  const float* sorted_values(std::int64_t t, std::int64_t first, std::int64_t last) const {
    const auto& source = code.source();
    float* kept = Scratch<float>::mine().values.get(static_cast<std::int64_t>(source.size()) + 1);
    const float* given = reinterpret_cast<const float*>(values.data) + t * values.task;
    for (auto j = code.begin(first); j < code.begin(last); ++j) kept[j] = given[source[static_cast<std::size_t>(j)]];
    return kept;
  }

  // Vectors [begin, end) of all tasks, tile by tile.
  void positions(std::int64_t begin, std::int64_t end, std::int64_t first_part, std::int64_t last_part, const Work& work, Edges& edges) const {
    const auto each = work.images * place.vectors;
    const float* kept = nullptr;
    for (std::int64_t at = begin, task = -1; at < end;) {
      const auto t = at / each, stop = std::min(end, (t + 1) * each);
      if (t != task) kept = sorted_values(task = t, first_part, last_part), edges.copy(image(t, 0), image(t, work.images - 1));
      const auto tiles = (stop - at + code.tile_vectors() - 1) / code.tile_vectors();
      const auto next = at + (stop - at + tiles - 1) / tiles;
      tile(t, at - t * each, next - t * each, work.images, first_part, last_part, kept, edges);
      at = next;
    }
  }

  // Threads share the positions. Where each would have less than a tile, and of a pattern whose code is far larger than the
  // caches, they share the code, one group after another: as many weights times positions for each thread.
  void run(const Work& work, int threads) const {
    const auto all = work.tasks * work.images * place.vectors;
    const bool by_code = work.tasks < threads && (code.groups() >= 8 * threads || all < threads * code.tile_vectors());
#pragma omp parallel num_threads(threads)
    {
      const auto me = omp_get_thread_num(), team = omp_get_num_threads();
      Edges edges(place, channels_in, Scratch<float>::mine().other);
      if (!by_code) positions(all * me / team, all * (me + 1) / team, 0, code.parts(), work, edges);
      for (std::int64_t group = 0; by_code && group < code.groups(); ++group) {
        const auto first = code.group_begin(group), last = code.group_begin(group + 1);
        const auto share = [&](int thread) { return code.share(group, all, thread, team); };
        positions(share(me), share(me + 1), first, last, work, edges);
      }
    }
  }
};

// Pieces of the weight gradient: a tile of x where it lies, and a group of lines of g, which is packed. A tile is a part of one
// image or some whole ones. The groups of a tile follow one another, or of few tiles the tiles of a group.
struct InPlacePieces {
  const ConvPlan& plan;
  const GeneratedCorrelation& code;
  View g, x;
  Work work;
  std::int64_t parts;  // that will share them
  static constexpr auto most = GeneratedCorrelation::most_vectors;
  static constexpr std::int64_t few_tiles = 4;  // of a part: with fewer, parts share the code, which is more than their tiles

  struct Tile {
    std::int64_t image, images, begin, vectors;
  };
  struct Piece {
    std::int64_t tile, group;
  };

  const std::vector<std::int32_t>& source() const { return code.source(); }
  std::int64_t count() const { return tiles() * groups(); }
  bool all_lanes() const { return tiles() > 1 && LaneSums<float>::fit(plan.nnz); }

  // Weights that pieces [begin, end) have a share of.
  Range weights(std::int64_t begin, std::int64_t end) const {
    if (begin == end || !by_group()) return {0, begin == end ? 0 : plan.nnz};
    return {code.begin(group(piece(begin)).parts_begin), code.begin(group(piece(end - 1)).parts_end)};
  }

  // sums += piece c of task t.
  void add(std::int64_t c, std::int64_t t, const LaneSums<float>& sums) const {
    const auto& place = plan.in_place;
    const auto tile = this->tile(piece(c).tile), next = this->tile(std::min(piece(c).tile + 1, tiles() - 1));
    auto& scratch = Scratch<float>::mine();
    const float* from = at(x, t, tile);
    const auto step = [&](const View& v) { return (v.image - tile.vectors * lanes16) * static_cast<std::int64_t>(sizeof(float)); };
    CorrelationOperands operands{from, from, from, nullptr, nullptr, nullptr, place.masks.data() + tile.begin * place.mask_row,
                                 at(x, t, next), at(g, t, next), tile.vectors, tile.images, step(x), step(g)};
    if (tile.image == 0 || tile.image + tile.images == work.images) {
      Edges edges(place, plan.x.channels, scratch.other, tile.images, x.image);
      const auto skip = tile.begin * lanes16;
      for (std::int64_t i = 0; i < tile.images; ++i) edges.copy(from - skip + i * x.image, from - skip + i * x.image, i);
      operands.first = edges.first() + skip;
      operands.last = edges.last() + skip;
    }
    const auto& lines = group(piece(c));
    float* held = scratch.packed.get((lines.lines_end - lines.lines_begin) * pitch());
    for (auto line = lines.lines_begin; line < lines.lines_end; ++line) pack(at(g, t, tile) + line * g.channel, tile, held + (line - lines.lines_begin) * pitch());
    operands.g = held - lines.lines_begin * pitch();
    sums.add(code, lines.parts_begin, lines.parts_end, operands);
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
  std::int64_t groups() const { return static_cast<std::int64_t>(code.groups().size()); }
  const LineGroup& group(const Piece& piece) const { return code.groups()[static_cast<std::size_t>(piece.group)]; }
  bool by_group() const { return tiles() < few_tiles * parts; }
  Piece piece(std::int64_t c) const { return by_group() ? Piece{c % tiles(), c / tiles()} : Piece{c / groups(), c % groups()}; }

  std::int64_t of_image() const { return (plan.in_place.vectors + most - 1) / most; }                     // tiles
  std::int64_t at_once() const { return most / std::max<std::int64_t>(1, plan.in_place.vectors); }        // images of a tile
  std::int64_t tiles() const { return at_once() > 1 ? (work.images + at_once() - 1) / at_once() : work.images * of_image(); }

  Tile tile(std::int64_t i) const {
    const auto all = plan.in_place.vectors;
    if (at_once() > 1) {
      const auto begin = work.images * i / tiles();
      return {begin, work.images * (i + 1) / tiles() - begin, 0, all};
    }
    const auto part = i % of_image(), begin = all * part / of_image();
    return {i / of_image(), 1, begin, all * (part + 1) / of_image() - begin};
  }
  static const float* at(const View& v, std::int64_t task, const Tile& tile) {
    return reinterpret_cast<const float*>(v.data) + task * v.task + tile.image * v.image + tile.begin * lanes16;
  }
};

}  // namespace sparsemeta::SPARSEMETA_ISA
