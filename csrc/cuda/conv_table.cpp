#include "conv_table.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>

namespace sparsemeta::cuda {
namespace {

// A kept weight as a phase sees it: the result channel that it adds to, what it reads, and its place in the pattern.
struct Entry {
  int to, from, row, column;  // row, column: number of the tap along each axis
  std::int32_t source;
};

// Taps of one axis in one phase: tap number of each kernel position, -1 for those of other phases.
struct Taps {
  int count = 0, first = 0, gap = 1;
  std::vector<int> number;
};

struct Geometry {  // of one axis
  int kernel, stride, padding, dilation, in, out;
};

Geometry geometry(const ConvShape& s, int axis) {
  const auto kernel = s.weight[2 + axis], in = s.input[axis], before = s.padding[2 * axis], after = s.padding[2 * axis + 1];
  const auto out = (in + before + after - s.dilation[axis] * (kernel - 1) - 1) / s.stride[axis] + 1;
  const auto narrow = [](std::int64_t n) { return static_cast<int>(n); };
  return {narrow(kernel), narrow(s.stride[axis]), narrow(before), narrow(s.dilation[axis]), narrow(in), narrow(out)};
}

// Of a forward pass: output j reads input j * stride - padding + k * dilation.
Taps forward_taps(const Geometry& g) {
  Taps taps{g.kernel, -g.padding, g.dilation, std::vector<int>(g.kernel)};
  std::iota(taps.number.begin(), taps.number.end(), 0);
  return taps;
}

// Of an input gradient: input i = remainder + j * stride is read by the outputs j + (remainder + padding - k * dilation)
// / stride, where that is whole. Those k are one residue class, so that the offsets lie at equal distances.
Taps backward_taps(const Geometry& g, int remainder) {
  std::vector<int> offsets;
  for (int k = 0; k < g.kernel; ++k)
    if ((remainder + g.padding - k * g.dilation) % g.stride == 0) offsets.push_back((remainder + g.padding - k * g.dilation) / g.stride);
  Taps taps{static_cast<int>(offsets.size()), offsets.empty() ? 0 : offsets.back(), 1, std::vector<int>(g.kernel, -1)};
  if (taps.count > 1) taps.gap = offsets[0] - offsets[1];
  for (int k = 0; k < g.kernel; ++k)
    if (const int ahead = remainder + g.padding - k * g.dilation; ahead % g.stride == 0)
      taps.number[k] = (ahead / g.stride - taps.first) / taps.gap;
  return taps;
}

// Tiles of equal size, at most `most` long.
void cut(Axis& a, const Taps& taps, int most) {
  a.tiles = a.count ? (a.count + most - 1) / most : 0;
  a.tile = a.tiles ? (a.count + a.tiles - 1) / a.tiles : 1;
  a.by_tile = division(a.tile);
  const int lying = taps.count ? (a.tile - 1) * a.step + (taps.count - 1) * taps.gap + 1 : 0, by_tap = a.tile * taps.count;
  a.slots = std::min(lying, by_tap);
  if (lying <= by_tap) {
    a.unit = a.step, a.tap = taps.gap, a.inner = 1, a.outer = 0, a.modulus = division(a.slots);
  } else {
    a.unit = 1, a.tap = a.tile, a.inner = a.step, a.outer = taps.gap, a.modulus = division(a.tile);
  }
}

struct Sections {
  std::vector<Phase> phases;
  std::vector<std::int32_t> ranges, channels, sources;
  std::vector<Chunk> chunks;
  std::vector<Tap> taps;
};

// What a block needs besides the staged input: 2 words for a tap; for a value 1, or 2 totals of a gradient.
struct Budget {
  int warps, value_words, words;
};

// The largest tile of at most `pixels` that leaves room for one channel with one full position.
void choose_tile(Phase& p, const Taps& rows, const Taps& columns, int pixels, const Budget& budget) {
  for (int most = pixels; most >= 1; most /= 2) {
    cut(p.columns, columns, most);
    cut(p.rows, rows, std::max(1, most / p.columns.tile));
    const bool whole = p.rows.tiles == 1 && p.columns.tiles == 1;
    p.images = whole ? std::max(1, most / (p.rows.tile * p.columns.tile)) : 1;
    p.image_slots = p.rows.slots * p.columns.slots;
    p.plane = p.images * p.image_slots;
    p.by_image_slots = division(p.image_slots), p.by_plane = division(p.plane), p.by_columns = division(p.columns.slots);
    p.by_image_tile = division(p.rows.tile * p.columns.tile);
    if (p.plane + budget.warps * (2 + kRows * budget.value_words) <= budget.words) return;
  }
  throw std::invalid_argument("expected the taps of one pixel to fit in 48 KB of shared memory, got a kernel with " +
                              std::to_string(rows.count) + "x" + std::to_string(columns.count) + ' ' +
                              "taps; use backend=\"dense\"");
}

bool same_position(const Entry& a, const Entry& b) { return a.from == b.from && a.row == b.row && a.column == b.column; }

// One chunk: entries [begin, end) of one group, ordered by position.
void add_chunk(Sections& s, const Phase& p, int group, int warps, bool batches, const Entry* begin, const Entry* end) {
  Chunk c;
  c.group = group;
  c.channel = static_cast<int>(s.channels.size());
  c.tap = static_cast<int>(s.taps.size());
  c.value = static_cast<int>(s.sources.size());
  for (const Entry* e = begin; e != end; ++e)
    if (e == begin || e->from != e[-1].from) s.channels.push_back(e->from);
  c.channels = static_cast<int>(s.channels.size()) - c.channel;
  for (int w = 0; w < warps; ++w) {
    const int first = (group * warps + w) * kRows;
    int channel = -1, in_batch = 0;
    const Entry* last = nullptr;
    for (const Entry* e = begin; e != end; ++e) {
      if (e == begin || e->from != e[-1].from) ++channel;
      if (e->to < first || e->to >= first + kRows) continue;
      if (!last || !same_position(*last, *e)) {
        const auto kept = std::count_if(e, end, [&](const Entry& o) { return same_position(o, *e) && o.to >= first && o.to < first + kRows; });
        if (batches && last && in_batch + kept > kBatch) s.taps.back().rows |= kLast, in_batch = 0;
        in_batch += static_cast<int>(kept);
        const int slot = channel * p.plane + e->row * p.rows.tap * p.columns.slots + e->column * p.columns.tap;
        s.taps.push_back({slot * kWord, 0});
      }
      s.taps.back().rows |= 1 << (e->to - first);
      s.sources.push_back(e->source);
      last = e;
    }
    if (batches && last) s.taps.back().rows |= kLast;
    c.warp_tap[w + 1] = static_cast<int>(s.taps.size()) - c.tap;
    c.warp_value[w + 1] = static_cast<int>(s.sources.size()) - c.value;
  }
  s.chunks.push_back(c);
}

// The group's entries in as few chunks as fit.
void add_group(Sections& s, const Phase& p, int group, const Budget& budget, bool batches, std::vector<Entry>& entries) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::make_tuple(a.from, a.row, a.column, a.to) < std::make_tuple(b.from, b.row, b.column, b.to);
  });
  const Entry *begin = entries.data(), *const end = begin + entries.size();
  int words = 0;
  for (const Entry* at = begin; at != end;) {
    const Entry* next = at;
    int taps = 0;
    for (int warp = -1; next != end && same_position(*next, *at); ++next)
      if (const int its = next->to / kRows; its != warp) ++taps, warp = its;
    const int position = 2 * taps + static_cast<int>(next - at) * budget.value_words;
    const bool new_channel = at == begin || at->from != at[-1].from;
    if (at != begin && words + position + (new_channel ? p.plane : 0) > budget.words) {
      add_chunk(s, p, group, budget.warps, batches, begin, at);
      begin = at, words = 0;
    }
    words += position + (at == begin || new_channel ? p.plane : 0);
    at = next;
  }
  if (begin != end) add_chunk(s, p, group, budget.warps, batches, begin, end);
}

template <typename T>
std::int32_t append(std::vector<std::int32_t>& words, const std::vector<T>& section) {
  const auto at = words.size();
  const std::size_t size = section.size() * sizeof(T) / sizeof(std::int32_t);
  words.resize((at + size + 1) / 2 * 2);  // taps are read as pairs
  if (size) std::memcpy(words.data() + at, section.data(), size * sizeof(std::int32_t));
  return static_cast<std::int32_t>(at);
}

std::vector<std::int32_t> pack(Table t, const Sections& s) {
  std::vector<std::int32_t> words((sizeof(Table) / sizeof(std::int32_t) + 1) / 2 * 2);
  t.phases = static_cast<int>(s.phases.size());
  t.all_chunks = static_cast<int>(s.chunks.size());
  t.at_phases = append(words, s.phases);
  t.at_ranges = append(words, s.ranges);
  t.at_chunks = append(words, s.chunks);
  t.at_channels = append(words, s.channels);
  t.at_taps = append(words, s.taps);
  t.at_sources = append(words, s.sources);
  std::memcpy(words.data(), &t, sizeof t);
  return words;
}

Axis axis_of(const Geometry& g, const Taps& taps, bool backward, int remainder) {
  Axis a;
  a.first = taps.first;
  a.size = backward ? g.out : g.in;
  a.count = backward ? (g.in - remainder + g.stride - 1) / g.stride : g.out;
  a.step = backward ? 1 : g.stride;
  a.out_first = remainder;
  a.out_step = backward ? g.stride : 1;
  return a;
}

class Builder {
 public:
  Builder(const ConvShape& shape, const std::int64_t* index, std::int64_t nnz, Pass pass, int pixels)
      : shape_(shape), index_(index), backward_(pass == Pass::kInputGrad), gradient_(pass == Pass::kWeightGrad), pixels_(pixels) {
    table_.nnz = static_cast<int>(nnz);
    table_.outputs = static_cast<int>(backward_ ? shape.weight[1] * shape.groups : shape.weight[0]);
    table_.warps = std::clamp((table_.outputs + kRows - 1) / kRows, 1, kMaxWarps);
    table_.groups = (table_.outputs + table_.warps * kRows - 1) / (table_.warps * kRows);
    budget_ = {table_.warps, gradient_ ? 2 : 1, kSharedWords - (gradient_ ? batch_words(table_.warps) : 0)};
  }

  std::vector<std::int32_t> build() {
    const Geometry rows = geometry(shape_, 0), columns = geometry(shape_, 1);
    const int row_phases = backward_ ? std::min(rows.stride, rows.in) : 1, column_phases = backward_ ? std::min(columns.stride, columns.in) : 1;
    for (int r = 0; r < row_phases; ++r)
      for (int c = 0; c < column_phases; ++c) add_phase(rows, columns, r, c);
    return pack(table_, sections_);
  }

 private:
  void add_phase(const Geometry& rows, const Geometry& columns, int row, int column) {
    const Taps down = backward_ ? backward_taps(rows, row) : forward_taps(rows);
    const Taps across = backward_ ? backward_taps(columns, column) : forward_taps(columns);
    Phase p;
    p.rows = axis_of(rows, down, backward_, row);
    p.columns = axis_of(columns, across, backward_, column);
    choose_tile(p, down, across, pixels_, budget_);
    p.chunks = static_cast<int>(sections_.ranges.size());
    std::vector<std::vector<Entry>> groups = entries(down, across);
    for (int g = 0; g < table_.groups; ++g) {
      sections_.ranges.push_back(static_cast<int>(sections_.chunks.size()));
      add_group(sections_, p, g, budget_, gradient_, groups[g]);
    }
    sections_.ranges.push_back(static_cast<int>(sections_.chunks.size()));
    for (auto c = sections_.ranges[p.chunks]; c < sections_.ranges.back(); ++c) make_room(p, sections_.chunks[c]);
    sections_.phases.push_back(p);
  }

  void make_room(const Phase& p, const Chunk& c) {
    const Layout at(c.warp_tap[table_.warps], c.channels, p.plane, c.warp_value[table_.warps] * budget_.value_words);
    table_.shared_words = std::max(table_.shared_words, at.end + (gradient_ ? batch_words(table_.warps) : 0));
  }

  std::vector<std::vector<Entry>> entries(const Taps& down, const Taps& across) const {
    const auto [outputs, inputs, kh, kw] = shape_.weight;
    const auto per_group = std::max<std::int64_t>(outputs / shape_.groups, 1);
    std::vector<std::vector<Entry>> found(table_.groups);
    for (std::int64_t i = 0; i < table_.nnz; ++i) {
      const auto at = index_[i];
      const int out = static_cast<int>(at / (inputs * kh * kw));
      const int in = static_cast<int>(out / per_group * inputs + at / (kh * kw) % inputs);
      const int row = down.number[at / kw % kh], column = across.number[at % kw];
      if (row < 0 || column < 0) continue;
      const int to = backward_ ? in : out;
      found[to / (table_.warps * kRows)].push_back({to, backward_ ? out : in, row, column, static_cast<std::int32_t>(i)});
    }
    return found;
  }

  ConvShape shape_;
  const std::int64_t* index_;
  bool backward_, gradient_;
  int pixels_;
  Table table_;
  Budget budget_{};
  Sections sections_;
};

}  // namespace

std::vector<std::int32_t> make_table(const ConvShape& shape, const std::int64_t* index, std::int64_t nnz, Pass pass, int pixels) {
  return Builder(shape, index, nnz, pass, pixels).build();
}

}  // namespace sparsemeta::cuda
