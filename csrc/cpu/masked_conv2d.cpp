// Masked convolution, its input gradient and its weight gradient: sums of shifted lines, see ../README.md.
#include <omp.h>

#include <type_traits>

#include "../generated.h"
#include "in_place.h"
#include "kernels.h"
#include "lane_sums.h"
#include "lines.h"
#include "scratch.h"
#include "simd.h"

namespace sparsemeta::SPARSEMETA_ISA {
namespace {

struct Chunks {
  std::int64_t count, span;  // span in positions, whole vectors

  // As few chunks as the capacity allows, a multiple of the threads that will share them.
  Chunks(std::int64_t positions, std::int64_t capacity, int lanes, std::int64_t threads) {
    positions = std::max<std::int64_t>(positions, 1);
    count = (positions + capacity - 1) / capacity;
    count = (count + threads - 1) / threads * threads;
    span = ((positions + count - 1) / count + lanes - 1) / lanes * lanes;
    count = (positions + span - 1) / span;
  }
};

std::int64_t positions(const ConvPlan& plan, const Work& work) { return work.images * plan.rows * plan.pitch; }

// Threads that a product of this many multiply-adds can keep busy.
int threads_for(const ConvPlan& plan, const Work& work) {
  const auto work_size = static_cast<double>(plan.nnz) * static_cast<double>(positions(plan, work) * work.tasks);
  return work_size < 1e6 ? 1 : work.threads;
}

// Parts of a task's positions: one where there are as many tasks as threads.
std::int64_t parts_for(const Work& work, int threads) { return work.tasks < threads ? threads : 1; }

template <class T>
const T* task(const Rows& rows, std::int64_t t) {
  return rows.data ? reinterpret_cast<const T*>(rows.data) + t * rows.task : nullptr;
}

template <class T>
T* task(const View& view, std::int64_t t) {
  return reinterpret_cast<T*>(view.data) + t * view.task;
}

// sums[line] += w * x[shift...] over the weights of each segment; the sums of a tile stay in registers.
template <class T, int size>
void accumulate(const Index& index, std::int64_t block, const T* x, const T* values, const T* bias, T* sums) {
  using S = Simd<T>;
  const auto* shift = index.shift.data();
  for (auto s = index.block_begin[block]; s < index.block_begin[block + 1]; ++s) {
    const Segment segment = index.segments[static_cast<std::size_t>(s)];
    T* out = sums + static_cast<std::int64_t>(segment.line) * S::lanes * tile_vectors;
    typename S::vec acc[size];
    for (int t = 0; t < size; ++t)
      acc[t] = !segment.first ? S::load(out + t * S::lanes) : bias ? S::broadcast(bias[segment.line]) : S::zero();
    for (auto j = segment.begin; j < segment.end; ++j) {
      const T* from = x + shift[j];
      const auto w = S::broadcast(values[j]);
      for (int t = 0; t < size; ++t) acc[t] += w * S::loadu(from + t * S::lanes);
    }
    for (int t = 0; t < size; ++t) S::store(out + t * S::lanes, acc[t]);
  }
}

// sums[j] += <g line, shifted x line> lane by lane; the tile of g stays in registers.
template <class T, int size>
void correlate(const Index& index, std::int64_t block, const T* x, const T* g, std::int64_t g_pitch, T* sums) {
  using S = Simd<T>;
  const auto* shift = index.shift.data();
  for (auto s = index.block_begin[block]; s < index.block_begin[block + 1]; ++s) {
    const Segment segment = index.segments[static_cast<std::size_t>(s)];
    const T* line = g + segment.line * g_pitch;
    typename S::vec held[size];
    for (int t = 0; t < size; ++t) held[t] = S::load(line + t * S::lanes);
    for (auto j = segment.begin; j < segment.end; ++j) {
      const T* from = x + shift[j];
      typename S::vec part[4] = {S::load(sums + j * S::lanes), S::zero(), S::zero(), S::zero()};
      for (int t = 0; t < size; ++t) part[t % 4] += held[t] * S::loadu(from + t * S::lanes);
      S::store(sums + j * S::lanes, (part[0] + part[1]) + (part[2] + part[3]));
    }
  }
}

// Calls f with an integral constant of the given value, 1 to `most`.
template <int most, class F>
void with_size(int size, F f) {
  if (size == most) f(std::integral_constant<int, most>{});
  else if constexpr (most > 1) with_size<most - 1>(size, f);
}

// Calls f(first position, vectors) for tiles of nearly equal size that cover the chunk.
template <class F>
void for_tiles(std::int64_t span, int lanes, std::int64_t most, F f) {
  const auto vectors = span / lanes, tiles = (vectors + most - 1) / most;
  for (std::int64_t i = 0; i < tiles; ++i)
    f(vectors * i / tiles * lanes, static_cast<int>(vectors * (i + 1) / tiles - vectors * i / tiles));
}

// Sums of tiles by the kernel above, for any type and instruction set.
template <class T>
struct Compiled {
  using S = Simd<T>;
  const Index& index;

  std::int64_t tile() const { return tile_vectors; }
  std::int64_t pitch() const { return S::lanes * tile_vectors; }
  const std::vector<std::int32_t>& source() const { return index.source; }
  void run(const T* x, const T* values, T* sums, int vectors, const T* bias, const T*, const T*) const {
    for (std::int64_t b = 0; b < index.blocks(); ++b)
      with_size<tile_vectors>(vectors, [&](auto n) { accumulate<T, n>(index, b, x, values, bias, sums); });
  }
};

// The same by code generated for the pattern.
struct Generated {
  const GeneratedProduct& product;
  std::int64_t lines_out;

  // The sums of a tile, one line after another, share the second-level cache with the packed lines.
  static std::int64_t tile(std::int64_t lines_out) { return std::clamp<std::int64_t>(8192 / std::max<std::int64_t>(lines_out, 1), 16, 32); }
  static std::int64_t pitch(std::int64_t lines_out) { return (tile(lines_out) + 1) * Simd<float>::lanes; }

  std::int64_t tile() const { return tile(lines_out); }
  std::int64_t pitch() const { return pitch(lines_out); }
  const std::vector<std::int32_t>& source() const { return product.source(); }
  void run(const float* x, const float* values, float* sums, int vectors, const float* bias, const float* next,
           const float* out) const {
    for (std::int64_t part = 0; part < product.parts(); ++part)
      product.run(part, {x, x, x, values, sums, nullptr, bias, next, out, vectors});
  }
};

// Lines of one side from lines of the other: the forward, or with the transposed index the input gradient.
template <class T, class Engine>
struct Product {
  using S = Simd<T>;
  const ConvPlan& plan;
  const Index& index;
  const Engine engine;
  const Plane &from, &to;
  View in, out;
  Rows values, bias;

  void chunk(const Chunk& chunk, std::int64_t t, const T* kept) const {
    auto& scratch = Scratch<T>::mine();
    T* packed = scratch.packed.get(index.lines_in * index.pitch);
    Lines<T>(plan, from, chunk, index.lead, index.lead ? 0 : plan.halo).pack(task<T>(in, t), in, 0, index.lines_in, packed, index.pitch);
    T* sums = scratch.sums.get(index.lines_out * engine.pitch());
    const T* offset = task<T>(bias, t);
    for (auto line : index.empty) std::fill_n(sums + line * engine.pitch(), engine.tile() * S::lanes, offset ? offset[line] : T{0});
    for_tiles(chunk.span, S::lanes, engine.tile(), [&](std::int64_t at, int vectors) {
      const T *next = near(from, in, t, chunk.begin + chunk.span + at), *here = near(to, out, t, chunk.begin + at);
      engine.run(packed + at, kept, sums, vectors, offset, next, here);
      unpack(chunk.images, t, chunk.begin + at, vectors * S::lanes, sums);
    });
  }

  // About where a flat position is in the first channel of its image, for prefetching.
  const T* near(const Plane& plane, const View& v, std::int64_t t, std::int64_t position) const {
    const auto [image, row] = flat_row(plan, position / plan.pitch);
    return task<T>(v, t) + image * v.image + std::min(row * plane.row_step, plane.height) * v.row + position % plan.pitch;
  }

  void unpack(std::int64_t images, std::int64_t t, std::int64_t start, std::int64_t count, const T* sums) const {
    const auto phases = static_cast<std::int64_t>(to.phases.size());
    for (std::int64_t p = 0; p < phases; ++p) {
      const Tile<T> place(plan, to, to.phases[static_cast<std::size_t>(p)], out, images, start, count);
      for (std::int64_t c = 0; c < to.channels; ++c)
        place.unpack(sums + (c * phases + p) * engine.pitch(), task<T>(out, t) + c * out.channel);
    }
  }

  const T* sorted_values(std::int64_t t) const {
    T* kept = Scratch<T>::mine().values.get(plan.nnz + 1);
    const T* given = task<T>(values, t);
    const auto* source = engine.source().data();
    for (std::int64_t j = 0; j < plan.nnz; ++j) kept[j] = given[source[j]];
    return kept;
  }

  void run(const Work& work) const {
    const int threads = threads_for(plan, work);
    const Chunks chunks(positions(plan, work), index.capacity, S::lanes, work.tasks < threads ? threads : 1);
#pragma omp parallel num_threads(threads)
    {
      std::int64_t current = -1;
      const T* kept = nullptr;
#pragma omp for schedule(static)  // neighbours: each chunk prefetches the next
      for (std::int64_t i = 0; i < work.tasks * chunks.count; ++i) {
        const auto t = i / chunks.count;
        if (t != current) kept = sorted_values(t), current = t;
        chunk({i % chunks.count * chunks.span, chunks.span, work.images}, t, kept);
      }
    }
  }
};

template <class T>
struct CompiledCorrelation {
  using S = Simd<T>;
  const ConvPlan& plan;
  static constexpr bool generated = false;

  std::int64_t tile() const { return tile_vectors; }
  const std::vector<std::int32_t>& source() const { return plan.forward.source; }
  void run(std::int64_t block, const T* x, const T* g, const LaneSums<T>& sums, int vectors) const {
    with_size<tile_vectors>(vectors, [&](auto n) { correlate<T, n>(plan.forward, block, x, g, plan.grad_pitch, sums.data()); });
  }
};

struct GeneratedSums {
  const GeneratedCorrelation& correlation;
  static constexpr bool generated = true;

  std::int64_t tile() const { return GeneratedCorrelation::most_vectors; }
  const std::vector<std::int32_t>& source() const { return correlation.source(); }
  void run(std::int64_t block, const float* x, const float* g, const LaneSums<float>& sums, int vectors) const {
    sums.add(correlation, correlation.block_begin(block), correlation.block_begin(block + 1), {x, x, x, g, nullptr, nullptr, nullptr, x, g, vectors, 1, 0, 0});
  }
};

// Pieces of the weight gradient for any shape: the lines of g stay packed while those of x pass block by block.
template <class T, class Engine>
struct PackedPieces {
  using S = Simd<T>;
  const ConvPlan& plan;
  const Engine engine;
  View g, x;
  Work work;
  std::int64_t parts;  // that will share them
  Chunks chunks{positions(plan, work), plan.grad_capacity, S::lanes, parts};

  const std::vector<std::int32_t>& source() const { return engine.source(); }
  std::int64_t count() const { return chunks.count; }
  bool all_lanes() const { return !Engine::generated || LaneSums<T>::fit(plan.nnz); }
  Range weights(std::int64_t, std::int64_t) const { return {0, plan.nnz}; }

  // sums += piece c of task t.
  void add(std::int64_t c, std::int64_t t, const LaneSums<T>& sums) const {
    const Index& index = plan.forward;
    const Chunk chunk{c * chunks.span, chunks.span, work.images};
    auto& scratch = Scratch<T>::mine();
    const Lines<T> outputs(plan, plan.y, chunk, 0, 0), inputs(plan, plan.x, chunk, 0, plan.halo);
    T* held = scratch.packed.get(index.lines_out * plan.grad_pitch);
    outputs.pack(task<T>(g, t), g, 0, index.lines_out, held, plan.grad_pitch);
    T* packed = scratch.other.get(index.block_lines * index.pitch);
    for (std::int64_t b = 0; b < index.blocks(); ++b) {
      if (index.block_begin[b] == index.block_begin[b + 1]) continue;
      const auto first = b * index.block_lines, last = std::min(first + index.block_lines, index.lines_in);
      inputs.pack(task<T>(x, t), x, first, last, packed, index.pitch);
      for_tiles(chunk.span, S::lanes, engine.tile(), [&](std::int64_t at, int vectors) {
        engine.run(b, packed + at - first * index.pitch, held + at, sums, vectors);
      });
    }
  }
};

// The weight gradient: one inner product of a line of g with a shifted line of x for each weight.
template <class T, class Pieces>
struct Correlation {
  const Pieces pieces;
  std::int64_t nnz;

  // The weights that part `part` of one task's pieces has summed up for `out`.
  Range sum_pieces(std::int64_t t, std::int64_t part, T* out) const {
    const auto begin = pieces.count() * part / pieces.parts, end = pieces.count() * (part + 1) / pieces.parts;
    const auto weights = pieces.parts == 1 ? Range{0, nnz} : pieces.weights(begin, end);
    const LaneSums<T> sums(weights, pieces.all_lanes(), Scratch<T>::mine().sums);
    for (auto c = begin; c < end; ++c) pieces.add(c, t, sums);
    sums.scatter(pieces.source(), out);
    return weights;
  }

  // Parts are added in order, so that the same threads give the same bits.
  void run(const Rows& values, std::int64_t tasks, int threads) const {
    const auto parts = pieces.parts;
    T* out = reinterpret_cast<T*>(values.data);
    T* summed = parts == 1 ? nullptr : Scratch<T>::mine().values.get(std::max<std::int64_t>(1, tasks * parts * nnz));
    std::vector<Range> ranges(static_cast<std::size_t>(tasks * parts));
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (std::int64_t i = 0; i < tasks * parts; ++i)
      ranges[static_cast<std::size_t>(i)] = sum_pieces(i / parts, i % parts, parts == 1 ? out + i * values.task : summed + i * nnz);
    for (std::int64_t t = 0; t < (parts == 1 ? 0 : tasks); ++t) {
      T* to = out + t * values.task;
      std::fill_n(to, nnz, T{0});
      for (auto i = t * parts; i < (t + 1) * parts; ++i)
        for (auto j = ranges[static_cast<std::size_t>(i)].begin; j < ranges[static_cast<std::size_t>(i)].end; ++j) {
          const auto at = pieces.source()[static_cast<std::size_t>(j)];
          to[at] += summed[i * nnz + at];
        }
    }
  }
};

// Code for images that lie as it wants them, for packed lines otherwise; false where none can be generated.
template <class T>
bool generated_product(const ConvPlan& plan, bool transposed, View in, View out, Rows values, Rows bias, const Work& work) {
  if constexpr (std::is_same_v<T, float> && vector_bytes == 64) {
    if (!plan.generate) return false;
    const Index& index = transposed ? plan.input_grad : plan.forward;
    const Plane &from = transposed ? plan.y : plan.x, &to = transposed ? plan.x : plan.y;
    const auto& place = plan.in_place;
    if (place.possible && is_in_place(in, from, work)) {
      const auto& code = (transposed ? place.input_grad : place.forward).get([&] {
        const Layout layout{from.channels, to.channels, place.plane, place.plane, place.mask_row, place.edge(from.channels), place.plane, place.plane};
        return std::make_shared<const GeneratedProduct>(transposed ? place.transposed : place.weights, layout);
      });
      const auto& masks = transposed ? place.transposed_masks : place.masks;
      if (code.ready()) InPlaceProduct{place, code, masks, from.channels, in, out, values, bias}.run(work, threads_for(plan, work));
      return code.ready();
    }
    const auto& code = index.generated.get([&] {
      const Layout layout{index.lines_in, index.lines_out, index.pitch, Generated::pitch(index.lines_out), 0, 0, index.channel_in, index.channel_out};
      return std::make_shared<const GeneratedProduct>(packed_weights(index), layout);
    });
    if (code.ready()) Product<T, Generated>{plan, index, {code, index.lines_out}, from, to, in, out, values, bias}.run(work);
    return code.ready();
  }
  return false;
}

template <class T>
bool generated_weight_grad(const ConvPlan& plan, View g, View x, Rows values, const Work& work) {
  if constexpr (std::is_same_v<T, float> && vector_bytes == 64) {
    if (!plan.generate) return false;
    const int threads = threads_for(plan, work);
    const auto parts = parts_for(work, threads);
    const auto& place = plan.in_place;
    if (place.possible && is_in_place(x, plan.x, work) && has_planes(g, plan.y)) {
      const auto& code = place.weight_grad.get([&] {
        const Layout layout{plan.x.channels, plan.y.channels, place.plane, InPlacePieces::pitch(), place.mask_row, place.edge(plan.x.channels), place.plane, place.plane};
        return std::make_shared<const GeneratedCorrelation>(place.weights, layout, plan.x.channels);
      });
      if (code.ready()) Correlation<T, InPlacePieces>{{plan, code, g, x, work, parts}, plan.nnz}.run(values, work.tasks, threads);
      return code.ready();
    }
    const auto& code = plan.generated.get([&] {
      const Index& index = plan.forward;
      const Layout layout{index.lines_in, index.lines_out, index.pitch, plan.grad_pitch, 0, 0, 0, 0};
      return std::make_shared<const GeneratedCorrelation>(packed_weights(index), layout, index.block_lines);
    });
    if (code.ready()) Correlation<T, PackedPieces<T, GeneratedSums>>{{plan, {code}, g, x, work, parts}, plan.nnz}.run(values, work.tasks, threads);
    return code.ready();
  }
  return false;
}

template <class T>
void product(const ConvPlan& plan, bool transposed, View in, View out, Rows values, Rows bias, const Work& work) {
  if (!work.tasks || !work.images || generated_product<T>(plan, transposed, in, out, values, bias, work)) return;
  const Index& index = transposed ? plan.input_grad : plan.forward;
  const Plane &from = transposed ? plan.y : plan.x, &to = transposed ? plan.x : plan.y;
  Product<T, Compiled<T>>{plan, index, {index}, from, to, in, out, values, bias}.run(work);
}

template <class T>
void forward(const ConvPlan& plan, View x, Rows values, Rows bias, View y, const Work& work) {
  product<T>(plan, false, x, y, values, bias, work);
}

template <class T>
void input_grad(const ConvPlan& plan, View g, Rows values, View x, const Work& work) {
  if (!plan.x.covered)
    std::fill_n(reinterpret_cast<T*>(x.data), work.tasks * work.images * plan.x.channels * plan.x.height * plan.x.width, T{0});
  product<T>(plan, true, g, x, values, {0, 0}, work);
}

template <class T>
void weight_grad(const ConvPlan& plan, View g, View x, Rows values, const Work& work) {
  if (generated_weight_grad<T>(plan, g, x, values, work)) return;
  const int threads = threads_for(plan, work);
  Correlation<T, PackedPieces<T, CompiledCorrelation<T>>>{{plan, {plan}, g, x, work, parts_for(work, threads)}, plan.nnz}.run(values, work.tasks, threads);
}

}  // namespace

Machine machine(std::int64_t first_level_bytes, std::int64_t second_level_bytes, bool generate) {
  return {Simd<float>::lanes * tile_vectors, first_level_bytes, second_level_bytes, generate && vector_bytes == 64};
}

void masked_conv2d(const ConvPlan& plan, View x, Rows values, Rows bias, View y, const Work& work) {
  work.f64 ? forward<double>(plan, x, values, bias, y, work) : forward<float>(plan, x, values, bias, y, work);
}

void masked_conv2d_input_grad(const ConvPlan& plan, View g, Rows values, View x, const Work& work) {
  work.f64 ? input_grad<double>(plan, g, values, x, work) : input_grad<float>(plan, g, values, x, work);
}

void masked_conv2d_weight_grad(const ConvPlan& plan, View g, View x, Rows values, const Work& work) {
  work.f64 ? weight_grad<double>(plan, g, x, values, work) : weight_grad<float>(plan, g, x, values, work);
}

}  // namespace sparsemeta::SPARSEMETA_ISA
