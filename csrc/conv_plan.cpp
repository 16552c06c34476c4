#include "conv_plan.h"

#include <algorithm>
#include <numeric>

namespace sparsemeta {
namespace {

constexpr std::int64_t element_bytes = sizeof(float), alignment = 64 / element_bytes;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a <= 0 ? 0 : (a + b - 1) / b; }

std::int64_t round_up(std::int64_t a, std::int64_t to) { return ceil_div(a, to) * to; }

// Room for a vector behind a line, and an odd number of cache lines so that neighbours fall into different sets.
std::int64_t odd_pitch(std::int64_t elements) { return (round_up(elements, 2 * alignment) / alignment + 9) * alignment; }

// One axis of the image: how taps fall into phases and how many zeros neighbouring flat rows can share.
struct Axis {
  std::int64_t size, out, taps, stride, before, dilation;
  std::int64_t reach;                // largest shift of a tap, in plane steps
  std::int64_t pitch;                // plane steps of one row (or image) in the flat order
  std::vector<std::int64_t> phases;  // those that some tap reads

  Axis(std::int64_t size, std::int64_t taps, std::int64_t stride, std::int64_t before, std::int64_t after, std::int64_t dilation)
      : size(size), taps(taps), stride(stride), before(before), dilation(dilation) {
    out = (size + before + after - dilation * (taps - 1) - 1) / stride + 1;
    reach = (taps - 1) * dilation / stride;
    for (std::int64_t t = 0; t < taps; ++t) {
      const auto phase = t * dilation % stride;
      if (std::find(phases.begin(), phases.end(), phase) == phases.end()) phases.push_back(phase);
    }
    std::sort(phases.begin(), phases.end());
    std::int64_t shared = reach;
    for (auto phase : phases) shared = std::min({shared, begin(phase), out + reach - end(phase)});
    pitch = out + reach - shared;
  }

  std::int64_t begin(std::int64_t phase) const { return std::min(ceil_div(before - phase, stride), out + reach); }
  std::int64_t end(std::int64_t phase) const {
    return std::clamp(ceil_div(size + before - phase, stride), begin(phase), out + reach);
  }
  std::int64_t phase_of(std::int64_t tap) const {
    return std::lower_bound(phases.begin(), phases.end(), tap * dilation % stride) - phases.begin();
  }
  std::int64_t shift_of(std::int64_t tap) const { return tap * dilation / stride; }
  bool covered() const {
    std::int64_t seen = 0;
    for (auto phase : phases) seen += end(phase) - begin(phase);
    return seen == size;
  }
};

Plane input_plane(std::int64_t channels, const Axis& h, const Axis& w) {
  Plane plane{channels, h.size, w.size, h.stride, w.stride, {}, h.covered() && w.covered()};
  for (auto a : h.phases)
    for (auto b : w.phases) plane.phases.push_back({h.begin(a), h.end(a), w.begin(b), w.end(b), a - h.before, b - w.before});
  return plane;
}

struct Entry {
  std::int64_t in, out, shift;
  std::int32_t source;
};

// Lines of a block share the first-level cache: what a tile reads of each is one window of the flat order.
std::int64_t lines_of_a_block(std::int64_t reach, std::int64_t halo, std::int64_t tap_rows, const Machine& machine) {
  const auto window = std::min(machine.tile + halo, tap_rows * (machine.tile + reach));
  return std::max<std::int64_t>(1, machine.first_level_bytes / (window * element_bytes));
}

// Elements between the channels of a contiguous image, where every channel is one line.
std::int64_t channel(const Plane& plane) { return plane.phases.size() == 1 ? plane.height * plane.width : 0; }

void make_index(Index& index, std::vector<Entry>& entries, std::int64_t lines_in, std::int64_t lines_out, std::int64_t lead, std::int64_t halo,
                 std::int64_t block_lines, const Machine& machine, const Plane& from, const Plane& to) {
  index.lines_in = lines_in, index.lines_out = lines_out, index.lead = lead, index.block_lines = block_lines;
  index.channel_in = channel(from), index.channel_out = channel(to);
  const auto fits = machine.second_level_bytes / (std::max<std::int64_t>(lines_in, 1) * element_bytes) - halo;
  const auto least = std::max(halo, machine.tile);
  index.capacity = round_up(std::clamp(fits, least, std::max<std::int64_t>(least, 1 << 16)), machine.tile);
  index.pitch = odd_pitch(lead + index.capacity + halo);

  auto block = [&](const Entry& e) { return e.in / block_lines; };
  std::stable_sort(entries.begin(), entries.end(), [&](const Entry& a, const Entry& b) {
    return block(a) != block(b) ? block(a) < block(b) : a.out < b.out;
  });
  std::vector<bool> written(static_cast<std::size_t>(lines_out), false);
  std::int64_t current = 0;
  index.block_begin.push_back(0);
  for (const auto& e : entries) {
    for (; current < block(e); ++current) index.block_begin.push_back(static_cast<std::int64_t>(index.segments.size()));
    const auto at = static_cast<std::int32_t>(index.shift.size());
    const bool opens = static_cast<std::int64_t>(index.segments.size()) == index.block_begin.back();
    if (opens || index.segments.back().line != e.out) {
      index.segments.push_back({static_cast<std::int32_t>(e.out), at, at, !written[static_cast<std::size_t>(e.out)]});
      written[static_cast<std::size_t>(e.out)] = true;
    }
    index.segments.back().end = at + 1;
    index.shift.push_back(static_cast<std::int32_t>(e.in * index.pitch + lead + e.shift));
    index.source.push_back(e.source);
  }
  const auto blocks = ceil_div(lines_in, block_lines);
  for (; current < blocks; ++current) index.block_begin.push_back(static_cast<std::int64_t>(index.segments.size()));
  for (std::int64_t line = 0; line < lines_out; ++line)
    if (!written[static_cast<std::size_t>(line)]) index.empty.push_back(static_cast<std::int32_t>(line));
}

// For each vector of positions in a plane: which of them exist, then for each tap which of them it reads inside the plane.
std::vector<std::uint16_t> tap_masks(std::int64_t height, std::int64_t width, const std::vector<std::array<std::int64_t, 2>>& taps) {
  std::vector<std::uint16_t> masks;
  for (std::int64_t start = 0; start < height * width; start += alignment)
    for (const auto& [down, right] : taps) {
      unsigned mask = 0;
      for (std::int64_t i = 0; i < alignment && start + i < height * width; ++i) {
        const auto row = (start + i) / width + down, column = (start + i) % width + right;
        mask |= (row >= 0 && row < height && column >= 0 && column < width) << i;
      }
      masks.push_back(static_cast<std::uint16_t>(mask));
    }
  return masks;
}

void make_in_place(InPlace& p, const ConvShape& s, const Axis& h, const Axis& w, const std::int64_t* index, std::int64_t nnz) {
  p.possible = s.stride[0] == 1 && s.stride[1] == 1 && h.out == h.size && w.out == w.size && h.size * w.size > 0;
  if (!p.possible) return;
  const auto [out_channels, in_channels, kh, kw] = s.weight;
  p.plane = h.size * w.size;
  p.vectors = ceil_div(p.plane, alignment);
  std::vector<std::array<std::int64_t, 2>> taps{{0, 0}}, transposed{{0, 0}};
  for (std::int64_t a = 0; a < kh; ++a)
    for (std::int64_t b = 0; b < kw; ++b) {
      const auto down = a * s.dilation[0] - h.before, right = b * s.dilation[1] - w.before;
      taps.push_back({down, right});
      transposed.push_back({-down, -right});
      p.reach = std::max(p.reach, std::abs(down * w.size + right));
    }
  p.mask_row = static_cast<std::int64_t>(taps.size());
  p.masks = tap_masks(h.size, w.size, taps);
  p.transposed_masks = tap_masks(h.size, w.size, transposed);
  for (std::int64_t j = 0; j < nnz; ++j) {
    const auto tap = index[j] % (kw * kh), channel = index[j] / (kw * kh) % in_channels, out = index[j] / (kw * kh * in_channels);
    const auto in = out / (out_channels / s.groups) * in_channels + channel;
    const auto [down, right] = taps[static_cast<std::size_t>(tap + 1)];
    const auto mask = static_cast<std::int32_t>(down || right ? tap + 1 : 0);
    const auto shift = down * w.size + right;
    const auto source = static_cast<std::int32_t>(j), row = static_cast<std::int32_t>(tap / kw);
    p.weights.push_back({in, shift, out, mask, source, row});
    p.transposed.push_back({out, -shift, in, mask, source, row});
  }
}

}  // namespace

ConvPlan::ConvPlan(const ConvShape& s, const std::int64_t* index, std::int64_t nnz, const Machine& machine) : nnz(nnz) {
  const auto [out_channels, in_channels, kh, kw] = s.weight;
  const Axis h(s.input[0], kh, s.stride[0], s.padding[0], s.padding[1], s.dilation[0]);
  const Axis w(s.input[1], kw, s.stride[1], s.padding[2], s.padding[3], s.dilation[1]);
  x = input_plane(in_channels * s.groups, h, w);
  y = {out_channels, h.out, w.out, 1, 1, {{0, h.out, 0, w.out, 0, 0}}, true};
  pitch = w.pitch;
  rows = h.pitch;
  halo = h.reach * pitch + w.reach;

  const auto phases = static_cast<std::int64_t>(x.phases.size());
  const auto across = static_cast<std::int64_t>(w.phases.size());
  const auto group_out = out_channels / s.groups;
  std::vector<Entry> entries, transposed;
  for (std::int64_t j = 0; j < nnz; ++j) {
    const auto tap_w = index[j] % kw, tap_h = index[j] / kw % kh, channel = index[j] / (kw * kh) % in_channels;
    const auto out = index[j] / (kw * kh * in_channels);
    const auto in = (out / group_out * in_channels + channel) * phases + h.phase_of(tap_h) * across + w.phase_of(tap_w);
    const auto shift = h.shift_of(tap_h) * pitch + w.shift_of(tap_w);
    entries.push_back({in, out, shift, static_cast<std::int32_t>(j)});
    transposed.push_back({out, in, -shift, static_cast<std::int32_t>(j)});
  }
  const auto block = lines_of_a_block(w.reach, halo, h.reach + 1, machine);
  make_index(forward, entries, x.lines(), out_channels, 0, halo, block, machine, x, y);
  make_index(input_grad, transposed, out_channels, x.lines(), round_up(halo, alignment), halo, block, machine, y, x);
  const auto fits = machine.second_level_bytes / 2 / (out_channels * element_bytes) / machine.tile * machine.tile;
  grad_capacity = std::min(forward.capacity, std::max(fits, 2 * machine.tile));
  grad_pitch = odd_pitch(grad_capacity);
  generate = machine.generate;
  if (generate) make_in_place(in_place, s, h, w, index, nnz);
}

}  // namespace sparsemeta
